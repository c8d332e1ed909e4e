"""The ranks of a run that torchrun or SLURM's srun has started. They agree on things before a Trainer exists.

Lightning's own launcher does not need this: there rank 0 starts the other ranks after everything is decided.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment

from tubelet.runtime import signals, slurm
from tubelet.runtime.differences import differences
from tubelet.runtime.pulse import Pulse

log = logging.getLogger(__name__)
TIMEOUT = timedelta(minutes=30)
"""Time for the ranks to find each other, and to wait while one of them prepares data; Lightning's default."""
ANNOUNCE_AFTER, FAIL_AFTER, LEAVE_AFTER = 10.0, 120.0, 3.0
"""Seconds of waiting for the other ranks until a message says so; until it is an error, if srun may have started no
others; and from a signal until this rank gives up.
"""


class LostRank(RuntimeError):
    """A collective failed because other ranks are gone."""


class Ranks:
    """This process is `rank` of `size`. `launched`: whether torchrun or srun has started them. If not, this process is
    alone, or Lightning will start the others.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        local_rank: int = 0,
        store: dist.Store | None = None,
        launched: bool = False,
        pulse: Pulse | None = None,
    ) -> None:
        self.rank, self.size, self.local_rank, self.launched = rank, size, local_rank, launched
        self._store, self._pulse = store, pulse
        self._round = 0

    def compare(self, identity: dict[str, str]) -> None:
        """Raises ValueError, on rank 0 and on the ranks that differ, if not all ranks belong to the same run: two runs
        of one job may have used the same port. `identity`: from tubelet.runtime.differences.
        """
        if self._store is None:
            return
        self._round += 1
        digests = self._exchange("digest", hash_of(identity), reads=True)
        if len(set(digests)) == 1:
            return
        other = next(rank for rank, digest in enumerate(digests) if digest != digests[0])
        identities = self._exchange("identity", identity, reads=True)
        self._exchange("seen", True, reads=self.rank == 0)  # rank 0 keeps the store, so it exits last
        if self.rank != 0 and digests[self.rank] == digests[0]:
            raise SystemExit(2)
        raise ValueError(
            f"rank {other} belongs to another run than rank 0: {differences(identities[0], identities[other])}. Two "
            f"runs have met at {_master_address()}: start each by an srun of its own, or give each its own MASTER_PORT"
        )

    def from_rank_zero(self, function: Callable[[], Any]) -> Any:
        """Call `function` on rank 0 only, and return its result on all ranks. The result passes through JSON."""
        return self._agree(function, self.rank == 0)[0]

    def once_per_node(self, function: Callable[[], Any]) -> None:
        """Call `function` on the first rank of every node; all ranks wait until that is done."""
        self._agree(function, self.local_rank == 0)

    def check(self, devices: int, nodes: int) -> None:
        """Raises ValueError if the number of started processes is not the number that the trainer expects."""
        if self.launched and devices * nodes != self.size:
            raise ValueError(
                f"torchrun or SLURM started {self.size} processes in all, "
                f"but trainer.devices x trainer.num_nodes is {devices} x {nodes}"
            )
        if not self.launched and nodes > 1:
            raise ValueError(f"trainer.num_nodes is {nodes}: start the processes by torchrun or srun")

    @contextmanager
    def naming_lost_ranks(self, advice: str) -> Iterator[None]:
        """A context for collectives. If one fails because a rank is gone, it raises LostRank with the `advice`."""
        try:
            yield
        except RuntimeError as error:
            failed = isinstance(error, dist.DistError) or "gloo" in str(error)  # gloo raises plain RuntimeError
            if self._pulse and failed and (lost := self._pulse.lost()):
                raise LostRank(f"no answer from {' and '.join(lost)}: {advice}") from error
            raise

    def _agree(self, function: Callable[[], Any], calls: bool) -> list[Any]:
        """Call `function` where `calls` is True, and return the results of all ranks. If it fails on one rank, that
        rank raises the error, and the others exit with the same exit code and without a message.
        """
        if self._store is None:
            return [function()]
        result, error = None, None
        try:
            result = function() if calls else None
        except Exception as caught:
            error = caught
        code = None if error is None else 2 if isinstance(error, ValueError) else 1
        self._round += 1
        outcomes = self._exchange("outcome", [result, code], reads=True)
        codes = [code for _, code in outcomes if code is not None]
        if codes:
            # rank 0 keeps the store, so it exits last
            self._exchange("seen", True, reads=self.rank == 0)
            raise error or SystemExit(codes[0])
        return [result for result, _ in outcomes]

    def _exchange(self, name: str, mine: Any, reads: bool) -> list[Any]:
        assert self._store is not None
        keys = [f"{self._round}/{name}/{rank}" for rank in range(self.size)]
        self._store.set(keys[self.rank], json.dumps(mine))
        return [json.loads(self._store.get(key)) for key in keys] if reads else []


def hash_of(identity: dict[str, str]) -> str:
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def environment() -> ClusterEnvironment | None:
    """The environment that has started the ranks, torchrun's or srun's. None: this process is alone, or Lightning will
    start the others. Raises ValueError if SLURM's settings cannot work.
    """
    if TorchElasticEnvironment.detect():  # first: torchrun may run inside a SLURM job
        return TorchElasticEnvironment()
    if slurm.tasks() == 0 or slurm.runs_alone():
        return None
    if slurm.tasks() > 1 and slurm.in_batch_script():
        raise ValueError(_srun_advice())
    # In a job named `interactive` (salloc's default) Lightning finds no tasks, even if srun has started some.
    if not (slurm.tasks() > 1 and slurm.step() is not None) and not SLURMEnvironment.detect():
        return None
    try:
        return SLURMEnvironment()
    except RuntimeError as error:  # Lightning names the option that is missing
        raise ValueError(str(error)) from None


@cache
def join(accelerator: str, timeout_minutes: float) -> Ranks:
    """Find the other ranks and create the process group. Lightning would create it a little later, and then uses the
    one that exists. A collective may take `timeout_minutes`. Raises ValueError if SLURM's settings cannot work, or if
    no other rank comes and srun may not have started any.
    """
    cluster: Any = environment()
    if slurm.tasks() > 1 and slurm.runs_alone():
        log.warning("this process runs alone: SLURM gave the job %d tasks, but srun did not start it", slurm.tasks())
    if cluster is None or cluster.world_size() == 1:
        return Ranks(launched=cluster is not None)
    rank, size = cluster.global_rank(), cluster.world_size()
    backend = "nccl" if accelerator != "cpu" and torch.cuda.is_available() else "gloo"
    if isinstance(cluster, SLURMEnvironment):
        os.environ.setdefault("MASTER_PORT", str(slurm.port()))
    _ = cluster.main_address, cluster.main_port  # reading them sets MASTER_ADDR and MASTER_PORT if they are unset
    store = _meet(rank, size, may_be_alone=isinstance(cluster, SLURMEnvironment) and slurm.step() is None)
    store.set_timeout(TIMEOUT)
    timeout = timedelta(minutes=timeout_minutes)
    group = dist.PrefixStore("group", store)
    dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=timeout)
    mine = dist.PrefixStore("tubelet", store)
    return Ranks(rank, size, cluster.local_rank(), mine, launched=True, pulse=Pulse(store, rank, size))


def _meet(rank: int, size: int, may_be_alone: bool) -> dist.Store:
    """Wait for all ranks, and return the store that they share. `may_be_alone`: there may be no other ranks.

    torch ignores signals while it waits, so it waits in a thread.
    """
    met: list[dist.Store | BaseException] = []

    def meet() -> None:
        try:
            met.append(next(dist.rendezvous("env://", rank, size, timeout=TIMEOUT))[0])
        except BaseException as error:
            met.append(error)

    thread = Thread(target=meet, daemon=True)
    thread.start()
    waiting = f"waiting at {_master_address()} for the other {size - 1} of {size} ranks"
    start, stop, announced = time.monotonic(), float("inf"), rank != 0
    while not met:
        thread.join(0.1)
        now = time.monotonic()
        if {signals.SIGINT, signals.SIGTERM} & set(signals.noted):
            stop = min(stop, now + (0 if may_be_alone else LEAVE_AFTER))  # others may arrive at this moment
        if not met and now > stop:
            print(f"stopped while {waiting}: run the same command again", file=sys.stderr)
            raise SystemExit(signals.TRY_AGAIN)
        if not announced and now - start > ANNOUNCE_AFTER:
            announced = True
            print(waiting + (f". {_srun_advice()}" if may_be_alone else ""), file=sys.stderr, flush=True)
        if not met and may_be_alone and now - start > FAIL_AFTER:
            raise ValueError(f"no other rank came within {FAIL_AFTER:g} s. {_srun_advice()}")
    if isinstance(met[0], BaseException):
        raise met[0]
    return met[0]


def _master_address() -> str:
    return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"


def _srun_advice() -> str:
    """A message for a process that srun may or may not have started: nothing in its environment says which."""
    return (
        f"SLURM gave this job {slurm.tasks()} tasks, but srun does not seem to have started this process. For all "
        "tasks: `srun python train.py ...`; for one: `srun --ntasks=1 --ntasks-per-node=1 python train.py ...`"
    )
