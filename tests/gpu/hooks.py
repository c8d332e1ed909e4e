"""Callbacks that the check adds to runs."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import lightning as L
import torch


class NoHostSync(L.Callback):
    """From step `first` to the step before the last, whatever makes the host wait for the GPU raises an error: in the
    steps and between them. Before that, memory is pinned and kernels are chosen; after that, a checkpoint is written.
    """

    def __init__(self, first: int = 5) -> None:
        self.first = first

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        strict = self.first <= trainer.global_step < trainer.max_steps - 1
        torch.cuda.set_sync_debug_mode("error" if strict else "default")

    def on_train_end(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


class StopAfter(L.Callback):
    """Ends the training after `seconds`, counted from its first step."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.begun = seconds, 0.0

    def on_train_start(self, *_: Any) -> None:
        self.begun = perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if perf_counter() - self.begun > self.seconds:
            trainer.should_stop = True
