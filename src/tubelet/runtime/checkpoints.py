"""Checkpoints in the run directory.

`last.ckpt` is written every few steps and at the end; the one before it stays as `previous.ckpt`. `best.ckpt` is the
best by a validation metric. `step=N.ckpt` are kept permanently.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.distributed.checkpoint.api import CheckpointException

from tubelet import storage
from tubelet.evaluate.gather import gather_objects
from tubelet.loggers.metrics_csv import MetricsCSV
from tubelet.methods.base import method_of
from tubelet.runtime.lightning_internals import after_batch

log = logging.getLogger(__name__)
_T = TypeVar("_T")
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


class SaveError(RuntimeError):
    """At least one rank could not write a checkpoint. Earlier checkpoints are unchanged."""


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
        trainer.strategy.checkpoint_io = _StreamedIO()
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
        if self._is_permanent():
            # before last.ckpt: a run that continues from last.ckpt must not lack this one
            self._try_to_save(trainer, f"step={self._step}.ckpt")
        if self._step >= trainer.max_steps:
            save(trainer, LAST)
        elif self._step % self.every_n_steps == 0 or self._is_permanent():
            self._try_to_save(trainer, LAST)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = _metrics_rows(trainer), trainer.global_step

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        monitor = method_of(trainer).monitor if self.monitor == "auto" else self.monitor
        if monitor is not None and trainer.state.fn == "fit":
            self._save_if_best(trainer, monitor)

    def _save_if_best(self, trainer: L.Trainer, monitor: str) -> None:
        if monitor not in trainer.callback_metrics:
            raise ValueError(f"callbacks: monitor '{monitor}' is not logged; known: {sorted(trainer.callback_metrics)}")
        value, best = float(trainer.callback_metrics[monitor]), self.best
        if best is None or (value > best if self.mode == "max" else value < best):
            self.best = value  # before the save, because the checkpoint contains it
            if not self._try_to_save(trainer, BEST):
                self.best = best

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.should_stop and self._step < trainer.max_steps:  # stopped early
            save(trainer, LAST)

    def _is_permanent(self) -> bool:
        return self.keep_every_n_steps is not None and self._step % self.keep_every_n_steps == 0

    def _try_to_save(self, trainer: L.Trainer, name: str) -> bool:
        try:
            save(trainer, name)
        except SaveError as error:
            log.error("%s; training continues and tries again in %d steps", error, self.every_n_steps)
            for logger in trainer.loggers if trainer.is_global_zero else ():
                if isinstance(logger, WandbLogger):
                    logger.experiment.alert(title="no checkpoint", text=str(error))
            return False
        return True

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


def save(trainer: L.Trainer, name: str) -> Path:
    """Save `checkpoints/name` in the run directory, completely or not at all. Every rank must call this.

    The old last.ckpt becomes previous.ckpt. Raises SaveError on all ranks if one of them could not write.
    """
    path = Path(trainer.default_root_dir) / "checkpoints" / name
    temporary = storage.part(path)

    def write() -> None:
        try:
            trainer.save_checkpoint(temporary, weights_only=False)
        except (Exception, CheckpointException):
            trainer.strategy.barrier()  # the ranks without an error wait for this one at the end of `save_checkpoint`
            raise

    def flush() -> dict[str, tuple[int, int]]:
        """Flush the files that this rank wrote into a sharded checkpoint, and return their checksums."""
        if not temporary.is_dir():
            return {}
        # torch names the files of a rank `__<rank>_<number>`; all other files are rank 0's
        shards = sorted(temporary.glob(f"__{trainer.global_rank}_*"))
        rest = [file for file in temporary.iterdir() if not file.name.startswith("__")]
        files = shards + (rest if trainer.is_global_zero else [])
        for file in files:
            storage.flush(file)
        return {file.name: storage.checksum(file) for file in files}

    def publish() -> None:
        if not trainer.is_global_zero:
            return
        if temporary.is_dir():
            storage.seal(temporary, sums)
        if name == LAST and path.exists():
            # two renames: at any moment at least one of both names is a whole checkpoint
            storage.put(path, path.with_name(PREVIOUS))
        storage.put(temporary, path)

    try:
        _on_all_ranks(trainer, path, write)
        parts = gather_objects(_on_all_ranks(trainer, path, flush))
        sums = {name: value for part in parts for name, value in part.items()}
        _on_all_ranks(trainer, path, publish)
    except SaveError:
        if trainer.is_global_zero:
            with suppress(OSError):  # what cannot be removed now is removed when the run is continued
                storage.remove(temporary)
        raise
    return path


def _on_all_ranks(trainer: L.Trainer, path: Path, function: Callable[[], _T]) -> _T:
    """Call `function` and return its result. If it fails on one rank, this raises on all ranks, so that no rank waits
    for another without end: SaveError if the cause is the disk, else the error itself.
    """
    error: BaseException | None = None
    try:
        result = function()
    except (Exception, CheckpointException) as caught:
        error = caught
    if trainer.strategy.reduce_boolean_decision(error is None, all=True):
        return result
    reason = None if error is None else _disk_error(error)
    if error is not None and reason is None:
        raise error
    raise SaveError(f"cannot save {path}: {reason or 'another rank could not write'}") from error


def _disk_error(error: BaseException) -> OSError | None:
    """The OSError that caused `error`, if there is one: torch may raise other errors while it handles it."""
    seen: list[BaseException] = [error]
    for each in seen:  # the list grows in the loop: a search through causes and contexts
        if isinstance(each, OSError):
            return each
        failures = [caught for caught, _ in each.failures.values()] if isinstance(each, CheckpointException) else []
        seen += [cause for cause in (each.__cause__, each.__context__, *failures) if cause is not None]
    return None


def _metrics_rows(trainer: L.Trainer) -> int:
    """The number of rows in metrics.csv."""
    return sum(logger.rows for logger in trainer.loggers if isinstance(logger, MetricsCSV))


class _StreamedIO(TorchCheckpointIO):
    """Writes a checkpoint directly to the disk and flushes it. Lightning's own class first builds the whole file in
    memory, twice, and does not flush it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
