"""Throughput in clips per second, how well it uses the device, and the share of time that training waits for data."""

from __future__ import annotations

import logging
from time import perf_counter
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn

from tubelet.data.datamodule import TrainingLoader
from tubelet.data.dataset import Batch
from tubelet.data.manifest import ONE_CLASS
from tubelet.data.randomness import generator
from tubelet.masking import Mask
from tubelet.methods.base import Method, method_of
from tubelet.methods.parts import data_of
from tubelet.runtime.cost import cost_of
from tubelet.runtime.peaks import peak_tflops

log = logging.getLogger(__name__)


class Throughput(L.Callback):
    """Logs, as means over the last `window` steps:

        clips_per_s  clips per second over all devices
        data_wait    share of time in [0, 1] spent waiting for data
        tflops       10^12 operations per second of each device, from a count of the operations of the model's step
        mfu          tflops / the peak of the device, in [0, 1]; only for GPUs of tubelet.runtime.peaks

    The time between epochs (validation, pictures) does not count. The first `warmup` steps of a run are dropped,
    because in them workers start, kernels are chosen and graphs compiled. After them the operations are counted, once.
    """

    def __init__(self, warmup: int = 10, window: int = 50) -> None:
        self.warmup = warmup
        self.window = window
        self._seen = 0
        self._ended = self._waited_before = 0.0
        self._count_now = False
        self._flops: float | None = None  # of one clip
        self._reset()

    def _reset(self) -> None:
        self._clips = 0
        self._steps = 0
        self._elapsed = self._waited = 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._count_now = isinstance(trainer.strategy, ModelParallelStrategy)
        if stage == "fit" and self._count_now:
            self._flops = count(trainer)  # before the weights are spread over the devices

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
        if self._seen == self.warmup:
            if not self._count_now:  # later is better: a run starts sooner
                self._flops = count(trainer)
            self._reset()
        elif full:
            self._log(trainer, pl_module)
            self._reset()
        self._ended, self._waited_before = perf_counter(), _waited(trainer)

    def _log(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        each = self._clips / self._elapsed  # clips per second of one device
        values = {"clips_per_s": each * trainer.world_size, "data_wait": self._waited / self._elapsed}
        if self._flops is not None:
            values["tflops"] = each * self._flops / 1e12
            if pl_module.device.type == "cuda":
                peak = peak_tflops(torch.cuda.get_device_name(pl_module.device), str(trainer.precision))
                if peak is not None:
                    values["mfu"] = values["tflops"] / peak
        for name, value in values.items():
            # a tensor on the host: a number would be copied to the device, and from there for every refresh of the bar
            pl_module.log(name, torch.tensor(value), prog_bar=name in ("clips_per_s", "mfu"))


class _Loss(nn.Module):
    """A method whose output is the loss of its step."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Batch) -> Tensor:
        return self.method.step(batch).loss


def count(trainer: L.Trainer) -> float | None:
    """Floating-point operations of one training clip, or None if the step reads values and so cannot be counted."""
    method, data, clips = method_of(trainer), data_of(trainer), 2  # two, because mixup pairs clips
    grid, mask = data.grid, None
    if data.masking is not None:
        mask = Mask.from_hidden(torch.stack([data.masking(grid, generator=generator(i)) for i in range(clips)]))
    shape = (clips, method.model.encoder.in_channels, grid.frames, grid.height, grid.width)

    def batch() -> tuple[Batch]:
        numbers, labels = torch.zeros(clips, dtype=torch.int64), method.model.labels
        label = numbers if labels.problem == ONE_CLASS else torch.zeros(clips, labels.size)
        return (Batch(torch.empty(shape), mask, label, numbers),)

    try:
        return cost_of(_Loss(method), batch, clips).flops
    except Exception as error:  # of any target's or package's code: a figure is missing, training goes on
        log.info("the operations of a step cannot be counted, so tflops and mfu are not logged: %s", error)
        return None


def _waited(trainer: L.Trainer) -> float:
    """Seconds that training has waited for the loader since the loader was created."""
    return cast(TrainingLoader, trainer.train_dataloader).waited
