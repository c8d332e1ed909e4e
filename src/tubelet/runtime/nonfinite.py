"""What happens when a loss or gradient is not finite: the run stops, or goes on without that step.

The update itself is never made: `Method.configure_gradient_clipping` sees to that on the device. Here the host learns
of it and acts, on all ranks alike, for the norm of the reduced gradient is the same on all.
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
    """One optimizer step of this rank, numbered as in metrics.csv: whether its gradient was `finite`, to be read once
    `copied`; the loss and the lines of the manifest of each accumulated batch.
    """

    number: int
    finite: Tensor
    copied: torch.cuda.Event | None
    losses: list[Tensor]
    lines: list[Tensor]


class NonFinite(L.Callback):
    """Lists the videos of an offending step in nonfinite.csv (step, rank, loss of the rank's batch, path) and ends the
    run with FloatingPointError, unless no more than `skip` steps were passed over so far (`skipped_steps`).

    On a GPU a step is looked at when the next one has been queued, so that the host waits for nothing; also before a
    checkpoint and at the end of an epoch. In float16 a scaler overflows on purpose and halves itself: only a loss that
    is not finite counts.
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
        finite = method.grad_norm.isfinite().to("cpu", non_blocking=True)
        copied = _event(method.device)
        losses = [result["loss"] for result in method.results]
        self._waiting.append(Step(trainer.global_step - 1, finite, copied, losses, self._lines))
        self._lines = []
        self._look(trainer, leave=1 if copied else 0)
        if self.skip:
            method.log("skipped_steps", float(self.skipped))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._look(trainer)
        checkpoint["skipped_steps"] = self.skipped

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.skipped = checkpoint.get("skipped_steps", 0)

    def _look(self, trainer: L.Trainer, leave: int = 0) -> None:
        """At all steps but the last `leave`."""
        while len(self._waiting) > leave:
            step = self._waiting.popleft()
            if step.copied is not None:
                step.copied.synchronize()
            if not step.finite:
                self._act(trainer, step)

    def _act(self, trainer: L.Trainer, step: Step) -> None:
        manifest = data_of(trainer).datasets["train"].manifest
        mine = [
            (step.number, trainer.global_rank, float(loss), manifest.record(line).path)
            for loss, lines in zip(step.losses, step.lines, strict=True)
            for line in lines.tolist()
        ]
        rows = [row for part in gather_objects(mine) for row in part]
        losses = torch.tensor([row[2] for row in rows])
        if trainer.scaler is not None and losses.isfinite().all():
            return
        file = Path(trainer.default_root_dir) / "nonfinite.csv"
        if trainer.is_global_zero:
            _append(file, rows)
        self.skipped += 1
        if self.skipped > self.skip:
            what = "gradient" if losses.isfinite().all() else "loss"
            raise FloatingPointError(
                f"the {what} of step {step.number} is not finite: no update was made, and the weights are still good. "
                f"The videos of its batch are listed in {file}. (resume=auto trainer.skip_nonfinite={self.skipped} "
                f"goes on without this step.)"
            )


def _event(device: torch.device) -> torch.cuda.Event | None:
    """Reached by a GPU when it has done what is queued so far."""
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
