"""Parameter groups: weight decay and the learning rate of each layer. The model's stacks define them, not names."""

from __future__ import annotations

from typing import Any

from torch import nn

from tubelet.layers.stack import Stack


def layer_numbers(model: nn.Module) -> tuple[dict[nn.Parameter, int], int]:
    """The layer number of each parameter of the encoder, and the layer number of the head.

    Layer 0 is the embedding, together with everything that `encoder.layers()` does not list (tokens, position tables).
    Layer k is block k, counted from 1. The last norm has the same layer number as the head.
    """
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, Stack):
        raise ValueError(f"layer decay needs a model with an encoder, {type(model).__name__} has none")
    layers = list(encoder.layers())
    numbers = dict.fromkeys(encoder.parameters(), 0)
    numbers |= {parameter: number for number, part in enumerate(layers) for parameter in part.parameters()}
    return numbers, len(layers) - 1


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float | None = None) -> list[dict[str, Any]]:
    """Groups for AdamW, each with a `weight_decay` and an `lr_scale`, a factor on the learning rate of every step.

    Vectors, tokens and position tables have no weight decay. With `layer_decay`, the `lr_scale` of layer i is
    `layer_decay ** (L - i)`, where L is the number of the head (BEiT, https://arxiv.org/abs/2106.08254). Frozen
    parameters are left out.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("nothing to train: no parameter of the model needs a gradient")
    stacks = [part for part in model.modules() if isinstance(part, Stack)]
    undecayed = {parameter for stack in stacks for parameter in stack.undecayed()}
    # A decoder's tokens come first, then the model's own order. The gradient norm is a sum in this order, so the last
    # bit of every clipped step depends on it: do not change it, or old runs cannot be repeated.
    encoder = set(getattr(model, "encoder", model).parameters())
    trained.sort(key=lambda named: named[1] not in undecayed or named[1] in encoder)
    numbers, head = layer_numbers(model) if layer_decay is not None else ({}, 0)
    # one group per (weight decay, rate): a fused step is faster with few large groups
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in trained:
        decays = parameter.ndim > 1 and parameter not in undecayed
        decay = weight_decay if decays else 0.0
        scale = 1.0 if layer_decay is None else layer_decay ** (head - numbers.get(parameter, head))
        group = groups.setdefault((decay, scale), {"params": [], "names": [], "weight_decay": decay, "lr_scale": scale})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())
