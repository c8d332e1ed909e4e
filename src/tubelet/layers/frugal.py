"""A linear layer after a cheap function, which keeps only the function's input for the backward pass.

Autograd keeps the output of a norm or an activation, too, because the layer after it needs it for the gradient of its
weight. Here that output is computed again instead: an elementwise pass more, and a third fewer activations in a block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Cheap = Callable[[Tensor], Tensor]
"""A LayerNorm, or a function without weights."""


Again = tuple[Callable[..., Tensor], tuple[Tensor, ...]]
"""A function and what it takes to compute a tensor again."""


def linear_after(
    before: Cheap | None, x: Tensor, layer: nn.Module, bias: Tensor | None = None, again: Again | None = None
) -> Tensor:
    """layer(before(x)), [...,D] -> [...,E]. `bias` takes the place of the layer's own.

    again: how to compute x again from tensors that are kept anyway, or are smaller: then x is not kept either.
    """
    if type(layer) is not nn.Linear:  # a layer that has taken its place: quantised, or with an adapter
        y = layer(x if before is None else before(x))
        return y if bias is None else y + bias
    weight, bias = layer.weight, layer.bias if bias is None else bias
    known = not isinstance(before, nn.Module) or type(before) is nn.LayerNorm
    # a compiled graph decides by itself what it computes again
    if before is None or not known or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return F.linear(x if before is None else before(x), weight, bias)
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    function, parameters = _without_weights(before) if isinstance(before, nn.LayerNorm) else (before, ())
    recipe = again or (lambda kept: kept, (x,))
    out: Tensor = LinearAfter.apply(function, recipe, weight, bias, x, *parameters)
    return out


def _without_weights(norm: nn.LayerNorm) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """A norm as a function of x and its weights, and these."""

    def function(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)

    return function, tuple(each for each in (norm.weight, norm.bias) if each is not None)


class LinearAfter(torch.autograd.Function):
    """linear(function(x, *parameters)), with the weight and bias in the type of the product."""

    @staticmethod
    def forward(
        ctx: Any, function: Any, recipe: Again, weight: Tensor, bias: Tensor | None, x: Tensor, *parameters: Tensor
    ) -> Tensor:
        again, ingredients = recipe
        ctx.function, ctx.again, ctx.count = function, again, len(ingredients)
        device = weight.device.type
        ctx.autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        ctx.save_for_backward(weight, *(each.detach() for each in ingredients), *parameters)
        return F.linear(function(x, *parameters).to(weight.dtype), weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        weight, *saved = ctx.saved_tensors
        needs_weight, needs_bias, *needs = ctx.needs_input_grad[2:]
        device, dtype, enabled = ctx.autocast
        with torch.autocast(device, dtype, enabled=enabled, cache_enabled=False):
            x = ctx.again(*saved[: ctx.count])
            inputs = (x, *saved[ctx.count :])
            leaves = [each.detach().requires_grad_(need) for each, need in zip(inputs, needs, strict=True)]
            with torch.enable_grad():
                y = ctx.function(*leaves)
        rows = grad.flatten(0, -2)
        dweight = rows.T @ y.detach().to(grad.dtype).flatten(0, -2) if needs_weight else None
        dbias = rows.sum(0) if needs_bias else None
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        found = iter(torch.autograd.grad(y, wanted, (grad @ weight).to(y.dtype)) if wanted else ())
        return None, None, dweight, dbias, *(next(found) if need else None for need in needs)
