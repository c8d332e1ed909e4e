"""Learning-rate schedules. They are pure functions of the optimizer step, so a resumed run needs no stored state."""

from __future__ import annotations

import math


def warmup_cosine(step: int, total: int, warmup: int, lr: float, min_lr: float = 0.0, warmup_lr: float = 0.0) -> float:
    """Learning rate of optimizer step `step` (from 0): linear from `warmup_lr` to `lr`, then a half cosine to `min_lr`.

    The first step after the warm-up has exactly `lr`, the last one (total - 1) exactly `min_lr`.
    """
    if step < warmup:
        return warmup_lr + (lr - warmup_lr) * step / warmup
    # `max` for a run that ends with its warm-up; `min` for a run that is longer than planned
    progress = min((step - warmup) / max(total - warmup - 1, 1), 1.0)
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2
