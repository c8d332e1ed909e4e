"""Which parameters decay, and how fast each layer learns."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

_BLOCK = re.compile(r"(?:^|\.)encoder\.\w*blocks\.(\d+)\.")
_EMBEDDING = re.compile(r"(?:^|\.)encoder\.(?:patch_embed|positions|\w*_embed|cls_token|\w*_positions)")
_TOKEN_OR_POSITION = re.compile(r"(?:mask_token|cls_token|positions)$")


def layer_of(name: str, depth: int) -> int:
    """0 for the embedding, k + 1 for block k, depth + 1 for the final norm and the head."""
    if block := _BLOCK.search(name):
        return int(block[1]) + 1
    return 0 if _EMBEDDING.search(name) else depth + 1


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float | None = None) -> list[dict[str, Any]]:
    """Groups for AdamW, each with `weight_decay` and an `lr_scale` that multiplies the learning rate of every step.

    Vectors, biases, tokens and position tables do not decay. With `layer_decay`, layer i of a depth-L encoder learns at
    `layer_decay ** (L + 1 - i)` (BEiT, https://arxiv.org/abs/2106.08254). Frozen parameters are left out.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("nothing to train: no parameter of the model needs a gradient")
    depth = 1 + max(
        (int(block[1]) for name, _ in model.named_parameters() if (block := _BLOCK.search(name))), default=-1
    )
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in trained:
        decays = parameter.ndim > 1 and not name.endswith("bias") and not _TOKEN_OR_POSITION.search(name)
        decay = weight_decay if decays else 0.0
        scale = 1.0 if layer_decay is None else layer_decay ** (depth + 1 - layer_of(name, depth))
        group = groups.setdefault((decay, scale), {"params": [], "names": [], "weight_decay": decay, "lr_scale": scale})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())
