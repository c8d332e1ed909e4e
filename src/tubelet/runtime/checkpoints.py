"""Checkpoints in the run directory: `last.ckpt` every few steps and at the end, the one before it as `previous.ckpt`,
`best.ckpt` by a validation metric, `step=N.ckpt` to keep.
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
    """A checkpoint could not be written, on at least one rank; those before it are untouched."""


class Checkpoints(Checkpoint):
    """Args: every_n_steps: optimizer steps between two saves of last.ckpt; keep_every_n_steps: between those that are
    kept for good, None for none; monitor: metric that best.ckpt follows, "auto" for the method's own, None for no
    best.ckpt; mode: whether a large or a small value is good.

    A save that fails, on a full disk say, is a warning, and is tried again after as many steps; only at the end of
    training it is an error.
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
        self._validated = 0, -1  # rows of metrics.csv before the last validation, and its step

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        trainer.strategy.checkpoint_io = _StreamedIO()
        if stage == "fit":
            after_batch(trainer, self._after_batch)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step = trainer.global_step
        # of the last step, should there be no further one
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self._metrics.items()})

    def _after_batch(self, trainer: L.Trainer) -> None:
        """Before a validation: a run that is continued there does it again."""
        if trainer.global_step == self._step:  # in the middle of an accumulated step
            return
        self._step = trainer.global_step
        if self._is_kept():
            self._try_to_save(trainer, f"step={self._step}.ckpt")
        if self._step >= trainer.max_steps:
            save(trainer, LAST)
        elif self._step % self.every_n_steps == 0 or self._is_kept():
            self._try_to_save(trainer, LAST)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = _rows(trainer), trainer.global_step

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        monitor = method_of(trainer).monitor if self.monitor == "auto" else self.monitor
        if monitor is not None and trainer.state.fn == "fit":
            self._follow(trainer, monitor)

    def _follow(self, trainer: L.Trainer, monitor: str) -> None:
        if monitor not in trainer.callback_metrics:
            raise ValueError(f"callbacks: monitor '{monitor}' is not logged; known: {sorted(trainer.callback_metrics)}")
        value, best = float(trainer.callback_metrics[monitor]), self.best
        if best is None or (value > best if self.mode == "max" else value < best):
            self.best = value
            if not self._try_to_save(trainer, BEST):
                self.best = best

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.should_stop and self._step < trainer.max_steps:  # early
            save(trainer, LAST)

    def _is_kept(self) -> bool:
        return self.keep_every_n_steps is not None and self._step % self.keep_every_n_steps == 0

    def _try_to_save(self, trainer: L.Trainer, name: str) -> bool:
        try:
            save(trainer, name)
        except SaveError as error:
            log.error("%s; training goes on and tries again in %d steps", error, self.every_n_steps)
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
        checkpoint["metrics_rows"] = before if step == trainer.global_step else _rows(trainer)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._metrics = checkpoint["metrics"]
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, MetricsCSV):
                logger.keep(checkpoint["metrics_rows"])


def save(trainer: L.Trainer, name: str) -> Path:
    """Save under `checkpoints/name` of the run directory, as a whole or not at all; every rank must call this.

    What last.ckpt was becomes previous.ckpt. Raises SaveError, on all ranks, if one of them could not write.
    """
    path = Path(trainer.default_root_dir) / "checkpoints" / name
    temporary = storage.part(path)

    def write() -> None:
        try:
            trainer.save_checkpoint(temporary, weights_only=False)
        except (Exception, CheckpointException):
            trainer.strategy.barrier()  # where the ranks without an error wait, at the end of `save_checkpoint`
            raise

    def flush() -> dict[str, tuple[int, int]]:
        """The checksums of the files that this rank wrote: of a sharded checkpoint, a directory."""
        if not temporary.is_dir():
            return {}
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
            storage.put(path, path.with_name(PREVIOUS))
        storage.put(temporary, path)

    try:
        _together(trainer, path, write)
        parts = gather_objects(_together(trainer, path, flush))
        sums = {name: value for part in parts for name, value in part.items()}
        _together(trainer, path, publish)
    except SaveError:
        if trainer.is_global_zero:
            with suppress(OSError):  # if it cannot be removed now, it is when the run is continued
                storage.remove(temporary)
        raise
    return path


def _together(trainer: L.Trainer, path: Path, function: Callable[[], _T]) -> _T:
    """What `function` returns; if it fails on one rank it fails on all, by SaveError where the disk is to blame."""
    error: BaseException | None = None
    try:
        result = function()
    except (Exception, CheckpointException) as caught:
        error = caught
    if trainer.strategy.reduce_boolean_decision(error is None, all=True):
        return result
    reason = None if error is None else _of_the_disk(error)
    if error is not None and reason is None:
        raise error
    raise SaveError(f"cannot save {path}: {reason or 'another rank could not write'}") from error


def _of_the_disk(error: BaseException) -> OSError | None:
    """The OSError at its root: torch raises others while it handles that."""
    seen: list[BaseException] = [error]
    for each in seen:
        if isinstance(each, OSError):
            return each
        failures = [caught for caught, _ in each.failures.values()] if isinstance(each, CheckpointException) else []
        seen += [cause for cause in (each.__cause__, each.__context__, *failures) if cause is not None]
    return None


def _rows(trainer: L.Trainer) -> int:
    """Of metrics.csv."""
    return sum(logger.rows for logger in trainer.loggers if isinstance(logger, MetricsCSV))


class _StreamedIO(TorchCheckpointIO):
    """Lightning's own makes the whole file in memory, twice, and does not flush it to the disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
