"""Throughput in clips per second, and the share of time that training waits for the loader."""

from __future__ import annotations

from time import perf_counter
from typing import Any, cast

import lightning as L
import torch

from tubelet.data.datamodule import TrainingLoader
from tubelet.data.dataset import Batch


class Throughput(L.Callback):
    """Logs `clips_per_s` over all devices, and `data_wait`, the share of time in [0, 1] spent waiting for data. Both
    are means over the last `window` steps. The time between epochs (validation, pictures) does not count.

    The first `warmup` steps of a run are dropped, because in them workers start, kernels are chosen and graphs
    compiled.
    """

    def __init__(self, warmup: int = 10, window: int = 50) -> None:
        self.warmup = warmup
        self.window = window
        self._seen = 0
        self._ended = self._waited_before = 0.0
        self._reset()

    def _reset(self) -> None:
        self._clips = 0
        self._steps = 0
        self._elapsed = self._waited = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._ended, self._waited_before = perf_counter(), _waited(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._seen += 1
        self._steps += 1
        self._clips += len(batch.clip)
        full = self._steps % self.window == 0
        if full and pl_module.device.type == "cuda":
            torch.cuda.synchronize()  # once per window, so that the clock covers finished work
        now = perf_counter()
        self._elapsed += now - self._ended
        self._waited += _waited(trainer) - self._waited_before
        self._ended, self._waited_before = now, _waited(trainer)
        if self._seen == self.warmup:
            self._reset()
        elif full:
            pl_module.log("clips_per_s", self._clips * trainer.world_size / self._elapsed, prog_bar=True)
            pl_module.log("data_wait", self._waited / self._elapsed)
            self._reset()


def _waited(trainer: L.Trainer) -> float:
    """Seconds that training has waited for the loader since the loader was created."""
    return cast(TrainingLoader, trainer.train_dataloader).waited
