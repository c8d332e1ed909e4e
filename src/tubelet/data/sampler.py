"""In which order samples come: a pure function of (seed, epoch), the same for any number of ranks and after a crash.

Every epoch is one random permutation. It is cut into global batches; with accumulation a global batch is cut into
micro-batches, one after the other; of each micro-batch rank r of R takes every R-th sample from the r-th on. So 1 or
64 ranks see the same global batches, and the place in the order is one number: micro-batches consumed so far, which
the trainer restores from its checkpoint. Nothing else is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from tubelet.data.randomness import generator

Slot = tuple[int, int]
"""(epoch, index): which sample, drawn for which epoch; with the seed, the key of all the sample's randomness."""


def per_device_batch(batch_size: int, ranks: int, accumulate: int) -> int:
    """`data.batch_size` is global: what one device loads at a time. Raises ValueError if it does not divide."""
    for name, value in (("data.batch_size", batch_size), ("ranks", ranks), ("accumulate", accumulate)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if batch_size % (ranks * accumulate):
        raise ValueError(
            f"data.batch_size {batch_size} is not divisible by {ranks} ranks x {accumulate} accumulated batches"
        )
    return batch_size // (ranks * accumulate)


def trainer_position(trainer: Any) -> int:
    """Micro-batches a Lightning trainer has consumed, over all epochs; right after a restore, too. (Of its counters
    `epoch_progress.current` is wrong in checkpoints of an epoch's end, `batch_progress.completed` one behind.)
    """
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)


class TrainingBatches:
    """Batches of one rank, as lists of slots, from `position()` to the end of that epoch; a last, smaller global batch
    is dropped. `len` is always that of the full epoch, as Lightning's counters want it.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int,
        position: Callable[[], int] = lambda: 0,
        rank: int = 0,
        ranks: int = 1,
        accumulate: int = 1,
    ) -> None:
        per_device_batch(batch_size, ranks, accumulate)
        if size < batch_size:
            raise ValueError(f"{size} training videos do not fill one batch: data.batch_size is {batch_size}")
        self.size, self.batch_size, self.seed, self.position = size, batch_size, seed, position
        self.rank, self.ranks, self.accumulate = rank, ranks, accumulate
        self._order: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return self.size // self.batch_size * self.accumulate

    def __iter__(self) -> Iterator[list[Slot]]:
        start = self.position()
        for k in range(start, start - start % len(self) + len(self)):
            yield self.batch(k)

    def batch(self, k: int) -> list[Slot]:
        """This rank's k-th micro-batch since the beginning of training."""
        epoch, micro = divmod(k, len(self))
        length = self.batch_size // self.accumulate
        indices = self._epoch_order(epoch)[micro * length : (micro + 1) * length]
        return [(epoch, index) for index in indices[self.rank :: self.ranks].tolist()]

    def _epoch_order(self, epoch: int) -> Tensor:
        """int64 [size]; the last one drawn is kept: 8 bytes a sample, no Python objects."""
        if self._order is None or self._order[0] != epoch:
            drawn = torch.randperm(self.size, generator=generator(self.seed, "order", epoch))
            self._order = (epoch, drawn)
        return self._order[1]


class EvaluationBatches:
    """Every sample once over all ranks, in order, none repeated to pad; always epoch 0, so that every evaluation draws
    the same masks. Rank r of R takes every R-th sample, in batches of equal length give or take one: equally many on
    every rank, unless there are fewer samples left than ranks.
    """

    def __init__(self, size: int, per_device: int, *, rank: int = 0, ranks: int = 1) -> None:
        if per_device < 1:
            raise ValueError(f"batches must hold at least 1 sample, got {per_device}")
        self._indices = torch.arange(rank, size, ranks)
        batches = -(-size // (ranks * per_device))  # rounded up, from the whole: the same on all ranks
        self._parts = min(batches, len(self._indices))

    @property
    def videos(self) -> int:
        """Samples of this rank."""
        return len(self._indices)

    def __len__(self) -> int:
        return self._parts

    def __iter__(self) -> Iterator[list[Slot]]:
        for part in self._indices.tensor_split(self._parts) if self._parts else ():
            yield [(0, index) for index in part.tolist()]
