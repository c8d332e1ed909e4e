"""The ranks of a run that something else has started, torchrun or SLURM's srun: how they agree before a Trainer exists.

Lightning's own launcher needs none of it: there rank 0 starts the others when all has been decided.
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
"""For the ranks to find each other, and to wait while one of them prepares data; Lightning's default."""
SAY, DOUBT, LEAVE = 10.0, 120.0, 3.0
"""Seconds of waiting for the other ranks: until it is said; until it is an error, where srun may have started none; and
after a signal.
"""


class LostRank(RuntimeError):
    """A collective failed because ranks are no longer there."""


class Ranks:
    """This process is `rank` of `size`. `launched`: they were started by something else; without it, this one is alone,
    or Lightning will start the others.
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
        """Raises ValueError, on the first rank and on those that differ, if not all of them belong to one run: two runs
        of one job may have met at one port. `identity`: of tubelet.runtime.differences.
        """
        if self._store is None:
            return
        self._round += 1
        digests = self._exchange("digest", hash_of(identity), reads=True)
        if len(set(digests)) == 1:
            return
        other = next(rank for rank, digest in enumerate(digests) if digest != digests[0])
        identities = self._exchange("identity", identity, reads=True)
        self._exchange("seen", True, reads=self.rank == 0)  # rank 0 keeps the store: it leaves when all know
        if self.rank != 0 and digests[self.rank] == digests[0]:
            raise SystemExit(2)
        raise ValueError(
            f"rank {other} belongs to another run than rank 0: {differences(identities[0], identities[other])}. Two "
            f"runs have met at {_meeting_point()}: start each by an srun of its own, or give each its own MASTER_PORT"
        )

    def from_first(self, function: Callable[[], Any]) -> Any:
        """What `function` returns on rank 0, as JSON gives it back, on all ranks; no other rank calls it."""
        return self._agree(function, self.rank == 0)[0]

    def once_per_node(self, function: Callable[[], Any]) -> None:
        """Returns when the first rank of every node has called `function`."""
        self._agree(function, self.local_rank == 0)

    def check(self, devices: int, nodes: int) -> None:
        """Raises ValueError if other processes were started than the trainer will count on."""
        if self.launched and devices * nodes != self.size:
            raise ValueError(
                f"torchrun or SLURM started {self.size} processes in all, "
                f"but trainer.devices x trainer.num_nodes is {devices} x {nodes}"
            )
        if not self.launched and nodes > 1:
            raise ValueError(f"trainer.num_nodes is {nodes}: start the processes by torchrun or srun")

    @contextmanager
    def naming_the_lost(self, advice: str) -> Iterator[None]:
        """Around collectives. Raises LostRank, with the `advice`, if one fails for want of a rank."""
        try:
            yield
        except RuntimeError as error:
            failed = isinstance(error, dist.DistError) or "gloo" in str(error)  # which raises no error of its own type
            if self._pulse and failed and (lost := self._pulse.lost()):
                raise LostRank(f"no answer from {' and '.join(lost)}: {advice}") from error
            raise

    def _agree(self, function: Callable[[], Any], calls: bool) -> list[Any]:
        """If one rank fails, all end: that one by its error, the others, with the same exit code, without a word."""
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
            # rank 0 keeps the store: it leaves when all know
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
    """What has started the ranks, torchrun or srun; None: this process is alone, or Lightning will start the others.
    Raises ValueError if SLURM's settings will not do.
    """
    if TorchElasticEnvironment.detect():  # first: torchrun may run inside a SLURM job
        return TorchElasticEnvironment()
    if slurm.tasks() == 0 or slurm.runs_alone():
        return None
    if slurm.tasks() > 1 and slurm.in_batch_script():
        raise ValueError(_without_srun())
    # Lightning sees no tasks in a job named `interactive`, as salloc names it, whether srun has started them or not
    if not (slurm.tasks() > 1 and slurm.step() is not None) and not SLURMEnvironment.detect():
        return None
    try:
        return SLURMEnvironment()
    except RuntimeError as error:  # Lightning names the option that is missing
        raise ValueError(str(error)) from None


@cache
def join(accelerator: str, timeout_minutes: float) -> Ranks:
    """Find the other ranks. The process group is made here, as Lightning would make it a little later: it then takes
    what is there. In it a collective may take `timeout_minutes`. Raises ValueError if SLURM's settings will not do, or
    if no other rank comes where srun may have started none.
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
    _ = cluster.main_address, cluster.main_port  # sets MASTER_ADDR and MASTER_PORT where they are not
    store = _meet(rank, size, doubtful=isinstance(cluster, SLURMEnvironment) and slurm.step() is None)
    store.set_timeout(TIMEOUT)
    timeout = timedelta(minutes=timeout_minutes)
    group = dist.PrefixStore("group", store)
    dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=timeout)
    mine = dist.PrefixStore("tubelet", store)
    return Ranks(rank, size, cluster.local_rank(), mine, launched=True, pulse=Pulse(store, rank, size))


def _meet(rank: int, size: int, doubtful: bool) -> dist.Store:
    """The store of all ranks, once they are there. `doubtful`: there may be no others. torch waits for them without
    listening to signals: so it waits in a thread.
    """
    met: list[dist.Store | BaseException] = []

    def meet() -> None:
        try:
            met.append(next(dist.rendezvous("env://", rank, size, timeout=TIMEOUT))[0])
        except BaseException as error:
            met.append(error)

    thread = Thread(target=meet, daemon=True)
    thread.start()
    waiting = f"waiting at {_meeting_point()} for the other {size - 1} of {size} ranks"
    start, stop, said = time.monotonic(), float("inf"), rank != 0
    while not met:
        thread.join(0.1)
        now = time.monotonic()
        if {signals.SIGINT, signals.SIGTERM} & set(signals.noted):
            stop = min(stop, now + (0 if doubtful else LEAVE))  # the others may be about to come
        if not met and now > stop:
            print(f"stopped while {waiting}: run the same command again", file=sys.stderr)
            raise SystemExit(signals.TRY_AGAIN)
        if not said and now - start > SAY:
            said = True
            print(waiting + (f". {_without_srun()}" if doubtful else ""), file=sys.stderr, flush=True)
        if not met and doubtful and now - start > DOUBT:
            raise ValueError(f"no other rank came within {DOUBT:g} s. {_without_srun()}")
    if isinstance(met[0], BaseException):
        raise met[0]
    return met[0]


def _meeting_point() -> str:
    return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"


def _without_srun() -> str:
    """What a process should know that one cannot tell from a task of srun."""
    return (
        f"SLURM gave this job {slurm.tasks()} tasks, but srun does not seem to have started this process. For all "
        "tasks: `srun python train.py ...`; for one: `srun --ntasks=1 --ntasks-per-node=1 python train.py ...`"
    )
