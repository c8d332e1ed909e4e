"""From what a node of conf/logger makes to a logger of this run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger


def complete(made: Logger | Callable[..., Logger], run_dir: Path, config: dict[str, Any]) -> Logger:
    """A logger stays as it is, so Lightning's own work as nodes. A function (`_partial_: true`) is called with those of
    `run_dir`, `config` and `save_dir` (the run directory, too) that its signature names and the node does not set.
    """
    if isinstance(made, Logger):
        return made
    known = {"run_dir": run_dir, "config": config, "save_dir": run_dir}
    named = inspect.signature(made).parameters.keys() - getattr(made, "keywords", {}).keys()
    return made(**{name: value for name, value in known.items() if name in named})
