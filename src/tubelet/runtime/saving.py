"""Writing a checkpoint: completely or not at all, and in a thread of its own while training continues.

In the step the state is only copied to the host. The thread writes the copy under a temporary name, flushes it to the
disk and renames it, so that at any moment the checkpoints on the disk are whole. There is at most one such write: the
next save waits for the one before it. Sharded checkpoints (fsdp) are written by all ranks together, and so at once.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from tubelet import storage
from tubelet.evaluate.gather import gather_objects

log = logging.getLogger(__name__)
_T = TypeVar("_T")
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


class SaveError(RuntimeError):
    """At least one rank could not write a checkpoint. Earlier checkpoints are unchanged."""


def save(trainer: L.Trainer, *names: str) -> None:
    """Save `checkpoints/NAME` in the run directory for each name, completely or not at all. Every rank must call this.

    The old last.ckpt becomes previous.ckpt. Raises SaveError on all ranks if one of them could not write.
    """
    errors: list[SaveError] = []
    save_while_training(trainer, *names, failed=errors.append)
    finish(trainer)
    if errors:
        raise errors[0]


def save_while_training(trainer: L.Trainer, *names: str, failed: Callable[[SaveError], None]) -> None:
    """Start what `save` does, and return as soon as training may change the weights. Every rank must call this.

    If it fails, every rank calls `failed`, at the next save or in `finish`. Raises what is not an error of the disk.
    """
    finish(trainer)
    saver = _saver(trainer)
    paths = [Path(trainer.default_root_dir) / "checkpoints" / name for name in names]
    try:
        for path in paths:
            _collect(trainer, path)
            if not storage.part(path).is_dir():  # nothing is written yet: one copy serves all names
                saver.start(paths, failed)
                break
            _publish_sharded(trainer, path)
    except SaveError as error:
        if trainer.is_global_zero:
            with suppress(OSError):  # what cannot be removed now is removed when the run is continued
                storage.remove(storage.part(path))
        failed(error)


def finish(trainer: L.Trainer) -> None:
    """Wait until the checkpoint that is being written is on the disk. Every rank must call this."""
    saver = _saver(trainer)
    failed, saver.failed = saver.failed, None
    if failed is None:  # nothing is being written, on no rank
        return
    try:
        _on_all_ranks(trainer, "a checkpoint", saver.wait)
    except SaveError as error:
        failed(error)


def finish_alone(trainer: L.Trainer) -> None:
    """Wait for what this rank is writing, without asking the other ranks: for a run that ends by an error."""
    saver = _saver(trainer)
    saver.failed = None
    try:
        saver.wait()
    except Exception as error:
        log.error("%s", error)


def is_written(trainer: L.Trainer) -> bool:
    """Whether `finish` would not have to wait on this rank."""
    return _saver(trainer).idle


class Saver(TorchCheckpointIO):
    """Lightning gives every whole checkpoint to `save_checkpoint` on rank 0, which keeps a copy of it. `start` writes
    the copy in a thread; `wait` waits for that, and raises its error.
    """

    def __init__(self) -> None:
        self.failed: Callable[[SaveError], None] | None = None
        self._copy: dict[str, Any] | None = None
        self._copied: torch.cuda.Event | None = None
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self._copy = host_copy(checkpoint)
        self._copied = torch.cuda.Event() if torch.cuda.is_initialized() else None
        if self._copied is not None:
            self._copied.record()

    def start(self, paths: list[Path], failed: Callable[[SaveError], None]) -> None:
        """Write the copy, on the rank that has one. The copy is freed as soon as it is written."""
        self.failed = failed
        if self._copy is not None:
            # no daemon: Python waits for it, whatever ends the main thread
            self._thread = Thread(target=self._run, args=(self._copy, paths), name="checkpoint")
            self._copy = None
            self._thread.start()

    @property
    def idle(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def wait(self) -> None:
        """Raises SaveError if the disk is the cause, else the error itself."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def write(self, checkpoint: dict[str, Any], path: Path) -> None:
        """Write directly to the disk and flush. Lightning's own class first builds the whole file in memory, twice, and
        does not flush it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())

    def _run(self, checkpoint: dict[str, Any], paths: list[Path]) -> None:
        for path in paths:
            try:
                if self._copied is not None:
                    self._copied.synchronize()
                self.write(checkpoint, storage.part(path))
                _publish(path)
            except Exception as error:
                reason = _disk_error(error)
                self._error = error if reason is None else SaveError(f"cannot save {path}: {reason}")
                with suppress(OSError):  # as above
                    storage.remove(storage.part(path))
                return


def host_copy(value: Any) -> Any:
    """A copy of a checkpoint in the memory of the host: training may change every part of the original. Tensors of a
    GPU are copied without waiting for it, into memory that torch keeps for the next copy.
    """
    if isinstance(value, Tensor):
        made = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda, requires_grad=False)
        return made.copy_(value.detach(), non_blocking=value.is_cuda)
    if isinstance(value, dict):
        same = copy.copy(value)  # with the type and the attributes that a state_dict has
        for key, item in value.items():
            same[key] = host_copy(item)
        return same
    if isinstance(value, list):
        return [host_copy(item) for item in value]
    if type(value) is tuple:
        return tuple(host_copy(item) for item in value)
    return copy.deepcopy(value)


def _saver(trainer: L.Trainer) -> Saver:
    if not isinstance(trainer.strategy.checkpoint_io, Saver):
        trainer.strategy.checkpoint_io = Saver()
    saver = trainer.strategy.checkpoint_io
    assert isinstance(saver, Saver)
    return saver


def _collect(trainer: L.Trainer, path: Path) -> None:
    """Have Lightning collect the state. It is then in the saver, or, if it is sharded, written under the temporary name
    of `path`.
    """

    def collect() -> None:
        try:
            trainer.save_checkpoint(storage.part(path), weights_only=False)
        except (Exception, CheckpointException):
            trainer.strategy.barrier()  # the ranks without an error wait for this one at the end of `save_checkpoint`
            raise

    _on_all_ranks(trainer, path, collect)


def _publish(path: Path, sums: dict[str, tuple[int, int]] | None = None) -> None:
    """Rename what has been written and flushed under the temporary name of `path`. `sums`: checksums of a directory."""
    temporary = storage.part(path)
    if sums is not None:
        storage.seal(temporary, sums)
    if path.name == LAST and path.exists():
        # two renames: at any moment at least one of both names is a whole checkpoint
        storage.put(path, path.with_name(PREVIOUS))
    storage.put(temporary, path)


def _publish_sharded(trainer: L.Trainer, path: Path) -> None:
    """Flush what all ranks have written, and rename it."""
    temporary = storage.part(path)

    def flush() -> dict[str, tuple[int, int]]:
        """Flush the files that this rank wrote, and return their checksums."""
        # torch names the files of a rank `__<rank>_<number>`; all other files are rank 0's
        shards = sorted(temporary.glob(f"__{trainer.global_rank}_*"))
        rest = [file for file in temporary.iterdir() if not file.name.startswith("__")]
        files = shards + (rest if trainer.is_global_zero else [])
        for file in files:
            storage.flush(file)
        return {file.name: storage.checksum(file) for file in files}

    parts = gather_objects(_on_all_ranks(trainer, path, flush))
    sums = {name: value for part in parts for name, value in part.items()}
    _on_all_ranks(trainer, path, lambda: _publish(path, sums) if trainer.is_global_zero else None)


def _on_all_ranks(trainer: L.Trainer, what: Path | str, function: Callable[[], _T]) -> _T:
    """Call `function` and return its result. If it fails on one rank, this raises on all ranks, so that no rank waits
    for another without end: SaveError if the cause is the disk, else the error itself. `what` is being saved.
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
    raise SaveError(f"cannot save {what}: {reason or 'another rank could not write'}") from error


def _disk_error(error: BaseException) -> OSError | None:
    """The OSError that caused `error`, if there is one: torch may raise other errors while it handles it."""
    seen: list[BaseException] = [error]
    for each in seen:  # the list grows in the loop: a search through causes and contexts
        if isinstance(each, OSError):
            return each
        failures = [caught for caught, _ in each.failures.values()] if isinstance(each, CheckpointException) else []
        seen += [cause for cause in (each.__cause__, each.__context__, *failures) if cause is not None]
    return None
