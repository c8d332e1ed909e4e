"""Checkpoints in the run directory: `last.ckpt` every few steps and at the end, `best.ckpt` by a validation metric."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import Checkpoint


class Checkpoints(Checkpoint):
    """Args: every_n_steps: optimizer steps between two saves of last.ckpt; monitor: metric that best.ckpt follows, None
    for no best.ckpt; mode: whether a large or a small value is good.

    A checkpoint is written to a temporary file, flushed to the disk and renamed: whenever a run is interrupted, either
    the old one or the new one is there.
    """

    def __init__(
        self, every_n_steps: int = 500, monitor: str | None = None, mode: Literal["min", "max"] = "max"
    ) -> None:
        self.every_n_steps = every_n_steps
        self.monitor = monitor
        self.mode = mode
        self.best: float | None = None
        self._saved_step = 0

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        # global_step moves when an accumulated step is complete: never saves in the middle of one
        step = trainer.global_step
        if step != self._saved_step and step % self.every_n_steps == 0:
            self._saved_step = step
            save(trainer, "last.ckpt")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.monitor is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self.monitor not in trainer.callback_metrics:
            raise ValueError(
                f"callbacks: monitor '{self.monitor}' is not logged; known: {sorted(trainer.callback_metrics)}"
            )
        value = float(trainer.callback_metrics[self.monitor])
        if self.best is None or (value > self.best if self.mode == "max" else value < self.best):
            self.best = value
            save(trainer, "best.ckpt")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        save(trainer, "last.ckpt")

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "saved_step": self._saved_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self._saved_step = state_dict["best"], state_dict["saved_step"]


def save(trainer: L.Trainer, name: str) -> Path:
    """Save atomically under `checkpoints/name` of the run directory; every rank must call this."""
    path = Path(trainer.default_root_dir) / "checkpoints" / name
    temporary = path.with_name(f".{name}.part")
    trainer.save_checkpoint(temporary, weights_only=False)
    if trainer.is_global_zero:
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    trainer.strategy.barrier("checkpoint renamed")
    return path
