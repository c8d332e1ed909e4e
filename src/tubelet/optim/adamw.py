"""The optimizer of all published recipes here: AdamW with a linear warm-up and a half cosine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tubelet.optim.groups import parameter_groups
from tubelet.optim.schedule import warmup_cosine


@dataclass(frozen=True)
class AdamW:
    """Learning rates are given for a global batch of 256 and scaled once, by `batch_size / 256`.

    Args:
        base_lr, min_lr, warmup_lr: peak, last and first learning rate at batch 256.
        warmup_epochs: length of the warm-up; it may be a fraction.
        weight_decay: applied to matrices only.
        layer_decay: factor per layer below the head, in (0, 1]; None: the same rate everywhere.
        clip_grad: largest gradient norm; None: no clipping.
    """

    base_lr: float = 1.5e-4
    min_lr: float = 1e-5
    warmup_lr: float = 1e-6
    warmup_epochs: float = 40
    weight_decay: float = 0.05
    betas: Sequence[float] = (0.9, 0.95)
    layer_decay: float | None = None
    clip_grad: float | None = None

    def __post_init__(self) -> None:
        if self.base_lr <= 0:
            raise ValueError(f"optim.base_lr must be positive, got {self.base_lr}")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"optim.layer_decay must lie in (0, 1], got {self.layer_decay}")

    def build(self, model: nn.Module) -> torch.optim.AdamW:
        groups = parameter_groups(model, self.weight_decay, self.layer_decay)
        return self.of(groups)

    def of(self, groups: list[dict[str, Any]]) -> torch.optim.AdamW:
        """AdamW over these parameter groups. It is fused: only torch's fused kind reads on the device whether to skip
        an update (`found_inf`).
        """
        return torch.optim.AdamW(groups, lr=self.base_lr, betas=(self.betas[0], self.betas[1]), fused=True)

    def peak_lr(self, batch_size: int) -> float:
        return self.base_lr * batch_size / 256

    def lr(self, step: int, total_steps: int, steps_per_epoch: int, batch_size: int) -> float:
        """Learning rate of optimizer step `step`, before it is multiplied by the `lr_scale` of a group."""
        # a run may be shorter than its warm-up: its last step still has the peak rate
        warmup = min(round(self.warmup_epochs * steps_per_epoch), total_steps - 1)
        rates = (rate * batch_size / 256 for rate in (self.base_lr, self.min_lr, self.warmup_lr))
        return warmup_cosine(step, total_steps, warmup, *rates)
