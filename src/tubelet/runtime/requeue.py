"""A signal stops a run so that nothing is lost: the step is finished, all ranks save, SLURM starts the job again."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
import torch.distributed as dist

from tubelet.runtime import signals, slurm
from tubelet.runtime.checkpoints import LAST, save
from tubelet.runtime.lightning_internals import after_batch, ignore_signals
from tubelet.runtime.signals import TRY_AGAIN

PATIENCE, IMPATIENCE = 120.0, 10.0
"""Seconds in which SLURM ends a job that it has agreed to requeue, and one that it had agreed to before."""


class Interrupted(Exception):
    """A signal has come, and what is to be kept is saved. `alone`: other ranks may not have got so far. `requeue`:
    whether SLURM may be asked to start the job again.
    """

    def __init__(self, trainer: L.Trainer, alone: bool = False, requeue: bool = True) -> None:
        self.alone = alone and trainer.world_size > 1
        self.requeue = requeue
        self.rank = trainer.global_rank
        self.run_dir = Path(trainer.default_root_dir)
        signal = signals.noted[0].name if signals.noted else "a signal to another rank"
        super().__init__(f"stopped by {signal} after step {trainer.global_step}")


class Requeue(L.Callback):
    """Raises `Interrupted` on all ranks after the same step, which is saved as `last.ckpt`; in an evaluation, where
    nothing new is to be saved, on each rank by itself before its next batch. `timeout_minutes`: for the others' answer;
    `enabled`: whether SLURM is then asked to start the job again.
    """

    def __init__(self, timeout_minutes: float, enabled: bool = True) -> None:
        self.enabled = enabled
        self._timeout = timedelta(minutes=timeout_minutes)
        self._step = 0
        self._group: Any = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        ignore_signals(trainer)
        if stage == "fit":
            after_batch(trainer, self._after_batch)
        if trainer.world_size > 1 and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo", timeout=self._timeout)  # between hosts: no device has to wait

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step = trainer.global_step
        if self._agreed(trainer):
            raise Interrupted(trainer, requeue=self.enabled)

    def _after_batch(self, trainer: L.Trainer) -> None:
        if trainer.global_step == self._step:  # in the middle of an accumulated step
            return
        self._step = trainer.global_step
        if self._agreed(trainer):
            save(trainer, LAST)
            raise Interrupted(trainer, requeue=self.enabled)

    def on_validation_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._leave_evaluation(trainer)

    def on_test_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._leave_evaluation(trainer)

    def _leave_evaluation(self, trainer: L.Trainer) -> None:
        if signals.noted:
            raise Interrupted(trainer, alone=True, requeue=self.enabled)

    def _agreed(self, trainer: L.Trainer) -> bool:
        """Whether a signal has come to any rank."""
        flag = torch.tensor([len(signals.noted)])
        if trainer.world_size > 1:
            dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group)
        return bool(flag)


def leave(interrupted: Interrupted) -> NoReturn:
    """End the process: under SLURM once the job is requeued; else with exit code 75 and a word on how to go on: without
    SLURM, after Ctrl-C, in an interactive job, and with trainer.requeue=false.
    """
    advice = "run the same command again"
    if (interrupted.run_dir / "checkpoints" / LAST).exists():
        advice += f" with resume={interrupted.run_dir}"
    job = slurm.job()
    if job is None or not interrupted.requeue or signals.SIGINT in signals.noted:  # Ctrl-C: somebody wants it to end
        _end(interrupted, advice)
    if slurm.interactive():  # the shell would be lost with it
        _end(interrupted, f"job {job} is interactive and is not requeued; {advice}")
    if interrupted.alone or interrupted.rank == 0:  # alone: rank 0 may be waiting for this one for ever
        _say(interrupted, f"requeueing job {job}")
        try:
            done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        except OSError as error:  # a container often has no scontrol
            _end(interrupted, f"job {job} cannot be requeued (scontrol cannot be run here: {error.strerror}): {advice}")
        # it also fails if SLURM is ending the job already, at the request of another rank, say
        if done.returncode and not _ended_by_slurm(IMPATIENCE):
            _end(interrupted, f"job {job} cannot be requeued ({done.stderr.strip()}): {advice}")
    if not _ended_by_slurm(PATIENCE):
        _end(interrupted, f"job {job} goes on, though it was to be requeued; once it has ended, {advice}")
    sys.exit(0)


def _ended_by_slurm(seconds: float) -> bool:
    """Waits for the SIGTERM with which SLURM begins to end a job, if it has not come before."""
    end = time.monotonic() + seconds
    while signals.SIGTERM not in signals.noted and time.monotonic() < end:
        time.sleep(0.1)
    return signals.SIGTERM in signals.noted


def _say(interrupted: Interrupted, text: str) -> None:
    if interrupted.alone or interrupted.rank == 0:
        print(f"{interrupted}: {text}", file=sys.stderr)


def _end(interrupted: Interrupted, advice: str) -> NoReturn:
    _say(interrupted, advice)
    sys.exit(TRY_AGAIN)
