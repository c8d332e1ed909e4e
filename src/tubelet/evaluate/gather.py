"""Rows of all ranks together, although every rank may hold another number of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def gather_rows(rows: Tensor, strategy: Any) -> Tensor:
    """[n,...] of this rank -> [n of all ranks,...], the same on every rank. `strategy` is Lightning's; every rank must
    call this. Nothing is padded away or counted twice: the counts travel first.
    """
    counts = strategy.all_gather(torch.tensor(len(rows), device=rows.device)).flatten().tolist()
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = strategy.all_gather(padded).reshape(len(counts), *padded.shape)  # [ranks,most,...]
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
