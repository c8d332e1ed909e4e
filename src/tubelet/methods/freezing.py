"""Freezing the first layers of an encoder: they keep their weights, and the backward pass ends above them.

No part of a frozen layer needs a gradient, so autograd keeps none of its activations.
"""

from __future__ import annotations

from torch import nn

from tubelet.models.base import VideoModel
from tubelet.optim.groups import layer_numbers


def freeze_blocks(model: VideoModel, blocks: int) -> list[nn.Module]:
    """Freeze the embedding, the tokens, the position tables and the first `blocks` blocks of the encoder.

    Returns the embedding and the frozen blocks, which are to stay in eval mode: no drop path and no dropout. Raises
    ValueError if the encoder has fewer blocks.
    """
    layers = list(model.encoder.layers())
    numbers, head = layer_numbers(model)
    if not 0 <= blocks < head:
        raise ValueError(f"method.freeze must lie between 0 and {head - 1}, the encoder's blocks, got {blocks}")
    for parameter, number in numbers.items():
        if number <= blocks:
            parameter.requires_grad_(False)
    return layers[: blocks + 1]
