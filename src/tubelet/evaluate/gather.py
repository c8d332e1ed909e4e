"""Gathering over ranks: rows of a tensor, of which each rank may hold a different number, or any object."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

_T = TypeVar("_T")


def gather_rows(rows: Tensor, strategy: Any) -> Tensor:
    """[n,...] of this rank -> [sum of n over ranks,...], the same on every rank. Every rank must call this.

    `strategy` is Lightning's. The ranks first exchange their counts, so no row is lost or counted twice.
    """
    counts = strategy.all_gather(torch.tensor(len(rows), device=rows.device)).flatten().tolist()
    # a collective needs equal shapes on all ranks
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = strategy.all_gather(padded).reshape(len(counts), *padded.shape)  # [ranks,most,...]
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def gather_objects(mine: _T) -> list[_T]:
    """The objects of all ranks, in the order of the ranks. Every rank must call this. With one rank: one entry."""
    if not dist.is_initialized():
        return [mine]
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, mine)
    return parts
