"""Train, validate or test: `python train.py [experiment=NAME] [group=choice] [key=value]`, `-m` for a sweep."""

from __future__ import annotations

from tubelet.runtime import signals

signals.note(*signals.WARNINGS)  # the imports below take seconds, in which one may come

import hydra  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from tubelet.config import job_errors, user_errors  # noqa: E402


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    with job_errors():
        from tubelet import run  # not above: a mistake in the config is told first, and children import this file, too

        run.main(cfg)


if __name__ == "__main__":
    with user_errors():
        main()
