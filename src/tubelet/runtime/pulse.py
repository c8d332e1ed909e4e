"""Who is gone, once a collective has failed: by itself it says only that somebody did not answer in time.

Every rank tells the store that the ranks share, all the time and in a thread, that it lives. So one that waits within a
collective is not taken for one that is lost.
"""

from __future__ import annotations

import socket
import time
from itertools import count
from threading import Thread

import torch.distributed as dist

BEAT = 2.0
"""Seconds between two signs of life."""


class Pulse:
    """Begins with `rank`'s signs of life, and waits for the first of all ranks."""

    def __init__(self, store: dist.Store, rank: int, size: int) -> None:
        self._store, self.rank = dist.PrefixStore("pulse", store), rank
        self._store.set(f"host/{rank}", socket.gethostname())
        Thread(target=self._beat, daemon=True).start()
        self._names = [f"rank {each} on {self._store.get(f'host/{each}').decode()}" for each in range(size)]

    def lost(self) -> list[str]:
        """Ranks that show no sign of life, with their hosts; of those that ask the same now, none. If the store cannot
        be reached: rank 0, which keeps it, or whose host does. Takes some seconds.
        """
        found: list[str] | None = None

        def look() -> None:
            nonlocal found
            self._store.set(f"asks/{self.rank}", "")
            before = self._beats()
            time.sleep(2.5 * BEAT)
            silent = [rank for rank, beat in enumerate(self._beats()) if beat == before[rank]]
            found = [self._names[rank] for rank in silent if not self._store.check([f"asks/{rank}"])]

        # in a thread, for a store behind a cut link never answers
        thread = Thread(target=look, daemon=True)
        thread.start()
        thread.join(5 * BEAT)
        return self._names[:1] if found is None else found

    def _beat(self) -> None:
        for beat in count():
            self._store.set(f"beat/{self.rank}", str(beat))
            time.sleep(BEAT)

    def _beats(self) -> list[bytes]:
        return [self._store.get(f"beat/{rank}") for rank in range(len(self._names))]
