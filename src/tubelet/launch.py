"""The program behind `python train.py` and `tubelet train`: compose the config, run what it says."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

from tubelet.runtime import signals

signals.note(*signals.WARNINGS)  # the imports below take seconds, in which one may come

import hydra  # noqa: E402
from hydra.core.hydra_config import HydraConfig  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from tubelet.config import job_errors, user_errors  # noqa: E402
from tubelet.config.compose import conf_directory  # noqa: E402
from tubelet.config.unchosen import unchosen  # noqa: E402


def main(conf: Path | None = None) -> None:
    """`conf`: the directory of configs; None: the packaged one. A config may name classes in the current directory."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    program = hydra.main(version_base="1.3", config_path=str(conf or conf_directory()), config_name="config")(run)
    with user_errors():
        program()


def run(cfg: DictConfig) -> float | None:
    """Returns what a sweeper such as Optuna's optimises: `objective`, None if the run did not log it."""
    if multiprocessing.get_start_method(allow_none=True) == "loky":
        # a process of joblib's launcher: it cannot start the workers of a loader in its own way
        multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    with job_errors():
        from tubelet.study import point  # not above: a mistake in the config is reported first

        left = unchosen(HydraConfig.get()) if cfg.weights is not None else {}
        return point(cfg, left).get(cfg.objective)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose files are no top-level modules
    main()
