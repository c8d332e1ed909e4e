"""The results of probes, which come when the run that they belong to is over, beside its own numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from tubelet.loggers.wandb import RunLogger, close_wandb


def log_results(loggers: Iterable[Logger], run_dir: Path, results: dict[str, Any]) -> None:
    """Add `results` to what the finished run in `run_dir` has logged: to the summary of its W&B run, and as values at
    its last step for any other logger. metrics.csv is left alone: a report reads the probes themselves.
    """
    if not results:
        return
    summary = json.loads((run_dir / "summary.json").read_text())
    for logger in loggers:
        if isinstance(logger, RunLogger):
            logger.add_to_summary(summary | results)
        else:
            logger.log_metrics(results, summary["steps"])
        logger.finalize("success")
    close_wandb()
