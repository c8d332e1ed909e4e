"""Train, validate or test: `python train.py [experiment=NAME] [group=choice] [key=value]`, `-m` for a sweep."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from tubelet import run
from tubelet.config import user_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    run.main(cfg)


if __name__ == "__main__":
    with user_errors():
        main()
