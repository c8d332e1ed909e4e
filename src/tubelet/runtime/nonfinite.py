"""Losses and gradients that are not finite: the run stops, or continues without that step.

`Method.configure_gradient_clipping` makes sure on the device that no update is made from such a gradient. This callback
tells the host about it. All ranks act alike, because they share the norm of the reduced gradient.
"""

from __future__ import annotations

import csv
import os
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor

from tubelet.data.dataset import Batch
from tubelet.evaluate.gather import gather_objects
from tubelet.methods.base import method_of
from tubelet.methods.parts import data_of

COLUMNS = ("step", "rank", "loss", "path")


class Step(NamedTuple):
    """One optimizer step of this rank; `number` counts as in metrics.csv.

    finite: whether its gradient is finite; the host may read it after the event `copied` (None: at once).
    losses, lines: the loss and the manifest lines of each accumulated batch.
    """

    number: int
    finite: Tensor
    copied: torch.cuda.Event | None
    losses: list[Tensor]
    lines: list[Tensor]


class NonFinite(L.Callback):
    """If a step is not finite, writes its videos to nonfinite.csv (step, rank, loss of the rank's batch, path). The
    first `skip` such steps are skipped and counted in `skipped_steps`; the next one raises FloatingPointError.

    On a GPU a step is checked after the next one is queued, so that the host does not wait for the device. All steps
    are checked before a checkpoint and at the end of an epoch. In float16 a gradient that is not finite is normal: the
    scaler raises the loss scale until the gradient overflows, then skips the step and halves the scale. So there only a
    loss that is not finite counts.
    """

    def __init__(self, skip: int = 0) -> None:
        if skip < 0:
            raise ValueError(f"trainer.skip_nonfinite must not be negative, got {skip}")
        self.skip, self.skipped = skip, 0
        self._lines: list[Tensor] = []
        self._waiting: deque[Step] = deque()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._lines.append(batch.index[:: batch.views])
        method = method_of(trainer)
        if not method.step_is_complete:
            return
        # copied without waiting; the event below says when the copy is complete
        finite = method.grad_norm.isfinite().to("cpu", non_blocking=True)
        copied = _record_event(method.device)
        losses = [result["loss"] for result in method.results]
        self._waiting.append(Step(trainer.global_step - 1, finite, copied, losses, self._lines))
        self._lines = []
        self._check_steps(trainer, leave=1 if copied else 0)
        if self.skip:
            method.log("skipped_steps", torch.tensor(float(self.skipped)))  # on the host: nothing to wait for

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._check_steps(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check_steps(trainer)
        checkpoint["skipped_steps"] = self.skipped

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.skipped = checkpoint.get("skipped_steps", 0)

    def _check_steps(self, trainer: L.Trainer, leave: int = 0) -> None:
        """Check all waiting steps except the last `leave`."""
        while len(self._waiting) > leave:
            step = self._waiting.popleft()
            if step.copied is not None:
                step.copied.synchronize()
            if not step.finite:
                self._handle_step(trainer, step)

    def _handle_step(self, trainer: L.Trainer, step: Step) -> None:
        """Write the videos of a step that is not finite, and end the run if it is one too many."""
        manifest = data_of(trainer).datasets["train"].manifest
        mine = [
            (step.number, trainer.global_rank, float(loss), manifest.record(line).path)
            for loss, lines in zip(step.losses, step.lines, strict=True)
            for line in lines.tolist()
        ]
        rows = [row for part in gather_objects(mine) for row in part]
        losses = torch.tensor([row[2] for row in rows])
        if trainer.scaler is not None and losses.isfinite().all():
            return  # the scaler has skipped the step and lowers its scale
        file = Path(trainer.default_root_dir) / "nonfinite.csv"
        if trainer.is_global_zero:
            _append(file, rows)
        self.skipped += 1
        if self.skipped > self.skip:
            what = "gradient" if losses.isfinite().all() else "loss"
            raise FloatingPointError(
                f"the {what} of step {step.number} is not finite: no update was made, and the weights are still good. "
                f"The videos of its batch are listed in {file}. (resume=auto trainer.skip_nonfinite={self.skipped} "
                f"continues without this step.)"
            )


def _record_event(device: torch.device) -> torch.cuda.Event | None:
    """An event that the GPU reaches when it has finished all work queued so far; None on other devices."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record()
    return event


def _append(file: Path, rows: list[Any]) -> None:
    new = not file.exists()
    with file.open("a", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerows([COLUMNS, *rows] if new else rows)
        handle.flush()
        os.fsync(handle.fileno())
