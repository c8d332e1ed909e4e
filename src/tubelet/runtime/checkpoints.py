"""Checkpoints in the run directory.

`last.ckpt` is written every few steps and at the end; the one before it stays as `previous.ckpt`. `best.ckpt` is the
best by a validation metric. `step=N.ckpt` are kept permanently.
"""

from __future__ import annotations

import logging
import math
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import WandbLogger

from tubelet.loggers.metrics_csv import MetricsCSV
from tubelet.methods.base import method_of
from tubelet.runtime.lightning_internals import after_batch
from tubelet.runtime.saving import (
    BEST,
    LAST,
    SaveError,
    finish,
    finish_alone,
    is_written,
    save,
    save_while_training,
)

log = logging.getLogger(__name__)


class Checkpoints(Checkpoint):
    """Args:
    every_n_steps: optimizer steps between two saves of last.ckpt.
    keep_every_n_steps: optimizer steps between two checkpoints that are kept permanently; None: none are.
    monitor: the metric that chooses best.ckpt; "auto": the method's own; None: no best.ckpt.
    mode: whether a large ("max") or a small ("min") value is good.

    If a save fails, for example on a full disk, an error is logged and the next save tries again. Only at the end of
    training a failed save ends the run.
    """

    def __init__(
        self,
        every_n_steps: int = 500,
        keep_every_n_steps: int | None = None,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "max",
    ) -> None:
        if every_n_steps < 1 or (keep_every_n_steps is not None and keep_every_n_steps < 1):
            raise ValueError(
                f"callbacks.checkpoints: every_n_steps {every_n_steps} and keep_every_n_steps {keep_every_n_steps} "
                "must be at least 1"
            )
        self.every_n_steps = every_n_steps
        self.keep_every_n_steps = keep_every_n_steps
        self.monitor = monitor
        self.mode = mode
        self.best: float | None = None
        self._step = 0
        self._metrics: dict[str, float] = {}
        self._validated = 0, -1  # number of rows in metrics.csv before the last validation, and its step

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            after_batch(trainer, self._after_batch)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step = trainer.global_step
        # the metrics of the last step, in case the resumed run has no further step
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self._metrics.items()})

    def _after_batch(self, trainer: L.Trainer) -> None:
        """Save before a validation. A run that is continued from there validates again."""
        if trainer.global_step == self._step:  # in the middle of an accumulated step
            return
        self._step = trainer.global_step
        if trainer.world_size == 1 and is_written(trainer):
            finish(trainer)  # an error of the disk is reported now; several ranks must all wait, and do so at a save
        # before last.ckpt: a run that continues from last.ckpt must not lack this one
        names = [f"step={self._step}.ckpt"] if self._is_permanent() else []
        if self._step >= trainer.max_steps:
            self._start_to_save(trainer, *names)
            save(trainer, LAST)
        elif self._step % self.every_n_steps == 0 or names:
            self._start_to_save(trainer, *names, LAST)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = _metrics_rows(trainer), trainer.global_step

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        monitor = method_of(trainer).monitor if self.monitor == "auto" else self.monitor
        if monitor is not None and trainer.state.fn == "fit":
            self._save_if_best(trainer, monitor)

    def _save_if_best(self, trainer: L.Trainer, monitor: str) -> None:
        if monitor not in trainer.callback_metrics:
            raise ValueError(f"callbacks: monitor '{monitor}' is not logged; known: {sorted(trainer.callback_metrics)}")
        finish(trainer)  # if the last best.ckpt could not be written, its value is not the best
        value, best = float(trainer.callback_metrics[monitor]), self.best
        # r2 of one video, or map without a positive video, is not a number: any other value is better
        if best is None or math.isnan(best) or (value > best if self.mode == "max" else value < best):
            self.best = value  # before the save, because the checkpoint contains it
            self._start_to_save(trainer, BEST, best_before=best)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.should_stop and self._step < trainer.max_steps:  # stopped early
            save(trainer, LAST)

    def _is_permanent(self) -> bool:
        return self.keep_every_n_steps is not None and self._step % self.keep_every_n_steps == 0

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        finish(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        finish_alone(trainer)

    def _start_to_save(self, trainer: L.Trainer, *names: str, best_before: float | None = None) -> None:
        """`best_before`: the value to return to if best.ckpt cannot be written."""

        def failed(error: SaveError) -> None:
            if BEST in names:
                self.best = best_before
            log.error("%s; training continues and tries again in %d steps", error, self.every_n_steps)
            for logger in trainer.loggers if trainer.is_global_zero else ():
                if isinstance(logger, WandbLogger):
                    logger.experiment.alert(title="no checkpoint", text=str(error))

        if names:
            save_while_training(trainer, *names, failed=failed)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["metrics"] = {name: float(value) for name, value in trainer.callback_metrics.items()}
        before, step = self._validated
        checkpoint["metrics_rows"] = before if step == trainer.global_step else _metrics_rows(trainer)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._metrics = checkpoint["metrics"]
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, MetricsCSV):
                logger.keep(checkpoint["metrics_rows"])


def _metrics_rows(trainer: L.Trainer) -> int:
    """The number of rows in metrics.csv."""
    return sum(logger.rows for logger in trainer.loggers if isinstance(logger, MetricsCSV))
