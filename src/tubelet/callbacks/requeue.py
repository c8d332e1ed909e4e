"""A signal stops a run so that nothing is lost: the step is finished, all ranks save, SLURM starts the job again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Checkpoint

from tubelet import signals
from tubelet.callbacks.checkpoints import LAST, save

TRY_AGAIN = 75
"""Exit code of a run that was stopped and can be continued: EX_TEMPFAIL of sysexits.h."""
PATIENCE = 120.0
"""Seconds in which SLURM ends a job that it has agreed to requeue."""


class Interrupted(Exception):
    """A signal has come, and what is to be kept is saved."""

    def __init__(self, trainer: L.Trainer) -> None:
        self.rank = trainer.global_rank
        self.run_dir = Path(trainer.default_root_dir)
        signal = signals.noted[0].name if signals.noted else "a signal to another rank"
        super().__init__(f"stopped by {signal} after step {trainer.global_step}")


class Requeue(Checkpoint):
    """Raises `Interrupted` on all ranks after the same step, which is saved as `last.ckpt`; in an evaluation, where
    nothing new is to be saved, on each rank by itself before its next batch.

    A checkpoint callback, for those come after all others: whose state is then that of the finished step. After
    `timeout_minutes` a rank that does not answer is lost.
    """

    def __init__(self, timeout_minutes: float) -> None:
        self._timeout = timedelta(minutes=timeout_minutes)
        self._step = 0
        self._group: Any = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Lightning's own handlers start collectives amid others, and every step it synchronises to ask for them
        trainer._signal_connector.register_signal_handlers = lambda: None
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
        if trainer.world_size > 1 and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo", timeout=self._timeout)  # between hosts: no device has to wait

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step = trainer.global_step
        if self._agreed(trainer):
            raise Interrupted(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self._step:  # in the middle of an accumulated step
            return
        self._step = trainer.global_step
        if self._agreed(trainer):
            # Lightning logs a step after this hook. It cannot be left to go on until then: with the signal SLURM may
            # have ended the loaders' workers, for whose next batch it would wait
            trainer._logger_connector.update_train_step_metrics()
            save(trainer, LAST)
            raise Interrupted(trainer)

    def on_validation_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if signals.noted:
            raise Interrupted(trainer)

    on_test_batch_start = on_validation_batch_start

    def _agreed(self, trainer: L.Trainer) -> bool:
        """Whether a signal has come to any rank."""
        flag = torch.tensor([len(signals.noted)])
        if trainer.world_size > 1:
            dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group)
        return bool(flag)


def leave(interrupted: Interrupted) -> NoReturn:
    """End the process: under SLURM once the job is requeued, else with exit code 75 and a word on how to go on."""
    advice = "run the same command again"
    if (interrupted.run_dir / "checkpoints" / LAST).exists():
        advice += f" with resume={interrupted.run_dir}"
    job = _slurm_job()
    if job is None:
        _end(interrupted, advice)
    if interrupted.rank == 0:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip()
            _end(interrupted, f"no requeueing ({reason}); if SLURM does not start job {job} again, {advice}")
        print(f"{interrupted}: job {job} is requeued", file=sys.stderr)
    end = time.monotonic() + PATIENCE
    while signals.SIGTERM not in signals.noted:
        if time.monotonic() > end:
            _end(interrupted, f"job {job} goes on, though it was to be requeued; once it has ended, {advice}")
        time.sleep(0.1)
    sys.exit(0)


def _slurm_job() -> str | None:
    """As scontrol calls it."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def _end(interrupted: Interrupted, advice: str) -> NoReturn:
    if interrupted.rank == 0:
        print(f"{interrupted}: {advice}", file=sys.stderr)
    sys.exit(TRY_AGAIN)
