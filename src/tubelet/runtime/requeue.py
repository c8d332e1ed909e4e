"""Stopping by a signal without loss: the run finishes the step, all ranks save, and SLURM starts the job again."""

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
from tubelet.runtime.lightning_internals import after_batch, ignore_signals
from tubelet.runtime.saving import LAST, save
from tubelet.runtime.signals import TRY_AGAIN

REQUEUE_WAIT, REFUSED_WAIT = 120.0, 10.0
"""Seconds to wait until SLURM ends the job, after it has accepted a request to requeue it, and after it has refused one
(because another rank's request may have been accepted before).
"""


class Interrupted(Exception):
    """A signal has come, and the run is saved. `alone`: whether other ranks may not have reached this point. `requeue`:
    whether to ask SLURM to start the job again.
    """

    def __init__(self, trainer: L.Trainer, alone: bool = False, requeue: bool = True) -> None:
        self.alone = alone and trainer.world_size > 1
        self.requeue = requeue
        self.rank = trainer.global_rank
        self.run_dir = Path(trainer.default_root_dir)
        signal = signals.noted[0].name if signals.noted else "a signal to another rank"
        super().__init__(f"stopped by {signal} after step {trainer.global_step}")


class Requeue(L.Callback):
    """In training: raises `Interrupted` on all ranks after the same step, which is saved as `last.ckpt`. In an
    evaluation there is nothing new to save, so each rank raises it before its next batch, without asking the others.
    `timeout_minutes`: how long to wait for other ranks; `enabled`: whether to ask SLURM to start the job again.
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
            self._group = dist.new_group(
                backend="gloo", timeout=self._timeout
            )  # between hosts, so that no GPU has to wait

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step = trainer.global_step
        if self._any_rank_signalled(trainer):
            raise Interrupted(trainer, requeue=self.enabled)

    def _after_batch(self, trainer: L.Trainer) -> None:
        if trainer.global_step == self._step:  # in the middle of an accumulated step
            return
        self._step = trainer.global_step
        if self._any_rank_signalled(trainer):
            save(trainer, LAST)
            raise Interrupted(trainer, requeue=self.enabled)

    def on_validation_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._leave_evaluation(trainer)

    def on_test_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._leave_evaluation(trainer)

    def _leave_evaluation(self, trainer: L.Trainer) -> None:
        if signals.noted:
            raise Interrupted(trainer, alone=True, requeue=self.enabled)

    def _any_rank_signalled(self, trainer: L.Trainer) -> bool:
        """Whether any rank has received a signal."""
        # all ranks ask in every step: SLURM may signal one rank earlier than another, and all must stop after the same
        flag = torch.tensor([len(signals.noted)])
        if trainer.world_size > 1:
            dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group)
        return bool(flag)


def end_process(interrupted: Interrupted, finds_itself: bool = False) -> NoReturn:
    """End the process. Under SLURM the job is requeued first. Without SLURM, after Ctrl-C, in an interactive job and
    with trainer.requeue=false, the exit code is 75 and a message says how to continue. `finds_itself`: the same command
    continues by itself.
    """
    advice = "run the same command again"
    if not finds_itself and (interrupted.run_dir / "checkpoints" / LAST).exists():
        advice += f" with resume={interrupted.run_dir}"
    job = slurm.job()
    if job is None or not interrupted.requeue or signals.SIGINT in signals.noted:  # after Ctrl-C nobody wants a restart
        _exit_with_advice(interrupted, advice)
    if slurm.interactive():  # requeueing would end the user's shell, too
        _exit_with_advice(interrupted, f"job {job} is interactive and is not requeued; {advice}")
    if interrupted.alone or interrupted.rank == 0:  # alone: rank 0 may wait for this rank without end
        _print_once(interrupted, f"requeueing job {job}")
        try:
            done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        except OSError as error:  # a container often has no scontrol
            _exit_with_advice(
                interrupted, f"job {job} cannot be requeued (scontrol cannot be run here: {error.strerror}): {advice}"
            )
        # this also fails if SLURM ends the job already, for example because another rank has asked for it
        if done.returncode and not _ended_by_slurm(REFUSED_WAIT):
            _exit_with_advice(interrupted, f"job {job} cannot be requeued ({done.stderr.strip()}): {advice}")
    if not _ended_by_slurm(REQUEUE_WAIT):
        _exit_with_advice(interrupted, f"job {job} continues, although it was requeued; after its end {advice}")
    sys.exit(0)


def _ended_by_slurm(seconds: float) -> bool:
    """Wait for the SIGTERM with which SLURM starts to end a job. Returns whether it has come."""
    end = time.monotonic() + seconds
    while signals.SIGTERM not in signals.noted and time.monotonic() < end:
        time.sleep(0.1)
    return signals.SIGTERM in signals.noted


def _print_once(interrupted: Interrupted, text: str) -> None:
    if interrupted.alone or interrupted.rank == 0:
        print(f"{interrupted}: {text}", file=sys.stderr)


def _exit_with_advice(interrupted: Interrupted, advice: str) -> NoReturn:
    _print_once(interrupted, advice)
    sys.exit(TRY_AGAIN)
