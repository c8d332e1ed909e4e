"""Signs of life of all ranks. After a failed collective they show which ranks are gone.

The error of a collective says only that some rank did not answer in time. So every rank has a thread that writes a sign
of life to the shared store all the time. A rank that only waits in a collective still gives signs of life.
"""

from __future__ import annotations

import atexit
import socket
import time
from itertools import count
from threading import Event, Thread

import torch.distributed as dist

BEAT = 2.0
"""Seconds between two signs of life."""


class Pulse:
    """Starts the signs of life of `rank`, and waits for the first sign of every other rank."""

    def __init__(self, store: dist.Store, rank: int, size: int) -> None:
        self._store, self.rank = dist.PrefixStore("pulse", store), rank
        self._store.set(f"host/{rank}", socket.gethostname())
        self._over = Event()
        self._thread = Thread(target=self._beat, daemon=True)  # daemon: the store may never answer
        self._thread.start()
        atexit.register(self._stop)
        self._names = [f"rank {each} on {self._store.get(f'host/{each}').decode()}" for each in range(size)]

    def lost(self) -> list[str]:
        """The ranks without a sign of life, with their hosts. A rank that calls this itself is not among them. If the
        store does not answer, the answer is rank 0, whose process or host keeps the store. Takes some seconds.
        """
        found: list[str] | None = None

        def find_silent() -> None:
            nonlocal found
            self._store.set(f"asks/{self.rank}", "")
            before = self._beats()
            time.sleep(2.5 * BEAT)
            # silent: no new beat within two and a half intervals
            silent = [rank for rank, beat in enumerate(self._beats()) if beat == before[rank]]
            found = [self._names[rank] for rank in silent if not self._store.check([f"asks/{rank}"])]

        # in a thread, because a store behind a broken network link never answers
        thread = Thread(target=find_silent, daemon=True)
        thread.start()
        thread.join(5 * BEAT)
        return self._names[:1] if found is None else found

    def _beat(self) -> None:
        for beat in count():
            try:
                self._store.set(f"beat/{self.rank}", str(beat))
            except dist.DistError:  # the process that keeps the store has ended
                return
            if self._over.wait(BEAT):
                return

    def _stop(self) -> None:
        """Before Python ends: a thread that is inside the store's C++ code at that moment would abort the process."""
        self._over.set()
        self._thread.join(BEAT)

    def _beats(self) -> list[bytes]:
        return [self._store.get(f"beat/{rank}") for rank in range(len(self._names))]
