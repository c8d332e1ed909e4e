"""The ranks of a run that something else has started, torchrun or SLURM's srun: how they agree before a Trainer exists.

Lightning's own launcher needs none of it: there rank 0 starts the others when all has been decided.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from tubelet.runtime.pulse import Pulse

TIMEOUT = timedelta(minutes=30)
"""For the ranks to find each other, and to wait while one of them prepares data; Lightning's default."""


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


@cache
def join(accelerator: str, timeout_minutes: float) -> Ranks:
    """Find the other ranks. The process group is made here, as Lightning would make it a little later: it then takes
    what is there. In it a collective may take `timeout_minutes`. Raises ValueError if SLURM's settings will not do.
    """
    environment: Any = None
    if TorchElasticEnvironment.detect():  # first: torchrun may run inside a SLURM job
        environment = TorchElasticEnvironment()
    elif SLURMEnvironment.detect():
        try:
            environment = SLURMEnvironment()
        except RuntimeError as error:  # Lightning names the option that is missing
            raise ValueError(str(error)) from None
    if environment is None or environment.world_size() == 1:
        return Ranks(launched=environment is not None)
    rank, size = environment.global_rank(), environment.world_size()
    backend = "nccl" if accelerator != "cpu" and torch.cuda.is_available() else "gloo"
    _ = environment.main_address, environment.main_port  # sets MASTER_ADDR and MASTER_PORT where they are not
    store, _, _ = next(dist.rendezvous("env://", rank, size, timeout=TIMEOUT))
    store.set_timeout(TIMEOUT)
    timeout = timedelta(minutes=timeout_minutes)
    group = dist.PrefixStore("group", store)
    dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=timeout)
    mine = dist.PrefixStore("tubelet", store)
    return Ranks(rank, size, environment.local_rank(), mine, launched=True, pulse=Pulse(store, rank, size))
