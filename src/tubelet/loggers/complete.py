"""Completing the loggers of conf/logger with what only the run knows: its directory and its config."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger


def complete(made: Logger | Callable[..., Logger], run_dir: Path, config: dict[str, Any]) -> Logger:
    """A logger is returned as it is, so Lightning's own loggers work as nodes. A function (`_partial_: true`) is called
    with `run_dir`, `config` and `save_dir` (the run directory, too), as far as its signature has these names and the
    node does not set them.
    """
    if isinstance(made, Logger):
        return made
    known = {"run_dir": run_dir, "config": config, "save_dir": run_dir}
    named = inspect.signature(made).parameters.keys() - getattr(made, "keywords", {}).keys()
    return made(**{name: value for name, value in known.items() if name in named})
