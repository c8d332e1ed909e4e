"""What every rank holds, on every rank: rows of a tensor, of which each rank may hold another number, or any object."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

_T = TypeVar("_T")


def gather_rows(rows: Tensor, strategy: Any) -> Tensor:
    """[n,...] of this rank -> [n of all ranks,...], the same on every rank. `strategy` is Lightning's; every rank must
    call this. Nothing is padded away or counted twice: the counts travel first.
    """
    counts = strategy.all_gather(torch.tensor(len(rows), device=rows.device)).flatten().tolist()
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = strategy.all_gather(padded).reshape(len(counts), *padded.shape)  # [ranks,most,...]
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def gather_objects(mine: _T) -> list[_T]:
    """What every rank has given, in their order; every rank must call this. Without other ranks: one entry."""
    if not dist.is_initialized():
        return [mine]
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, mine)
    return parts
