"""Attention in bfloat16 on the CPU, with a backward pass that keeps the matrix units busy.

PyTorch's kernel for the CPU computes this backward pass in tiles too small for them: on a CPU with AMX it takes half of
a training step. Here the scores of a few heads at a time are whole matrices: for 1,568 tokens that is 1.8 times as
fast, for 160 tokens 5 times. The forward pass is PyTorch's. The probabilities are rounded to bfloat16 in between, so
the gradient's error is 0.5% in place of 0.4%, both of it the rounding of bfloat16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula, sdpa_backward_flop_count

_SCORES = 2**21  # that are computed at once: 4 MiB for each of the three matrices in use, or one head if it has more
_PAD = 8  # further columns of a product, of which one is used: the matrix units want an even number of them


class BFloat16Attention(torch.autograd.Function):
    """q [B,heads,M,d], k and v [B,heads,K,d], all bfloat16 -> [B,heads,M,d]."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        out = F.scaled_dot_product_attention(q, k, v, scale=scale)
        ctx.save_for_backward(q, k, v, out)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        q, k, v, out = ctx.saved_tensors
        return *attention_backward(grad, q, k, v, out, ctx.scale), None


# an operator of its own: torch.compile leaves it as it is, and `tubelet bench` sees one call
@torch.library.custom_op(
    "tubelet::attention_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, float scale) -> (Tensor, Tensor, Tensor)",
)
def attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v; grad and out are [B,heads,M,d]. With probabilities p = softmax(scale * q k'):

    dv = p' grad,   ds = p * (grad v' - sum(grad * out)),   dq = scale * ds k,   dk = scale * ds' q
    """
    dots = (grad * out).sum(-1, keepdim=True).flatten(0, 1)  # [B*heads,M,1]
    scaled, k, v, grad = ((q * scale).flatten(0, 1), *(each.flatten(0, 1) for each in (k, v, grad)))  # [B*heads,*,d]
    # the product itself subtracts `dots`, as one more column times -1: one pass over the scores less
    left = torch.cat([grad, F.pad(dots, (0, _PAD - 1))], dim=-1)
    right = F.pad(v, (0, _PAD), value=-1.0)
    dq, dk, dv = torch.empty_like(scaled), torch.empty_like(k), torch.empty_like(v)
    step = max(1, _SCORES // (scaled.shape[1] * k.shape[1]))
    for first in range(0, len(k), step):
        heads = slice(first, first + step)
        p = torch.softmax(torch.bmm(scaled[heads], k[heads].transpose(1, 2)), dim=-1)
        ds = torch.bmm(left[heads], right[heads].transpose(1, 2)).mul_(p)
        torch.bmm(p.transpose(1, 2), grad[heads], out=dv[heads])
        torch.bmm(ds, k[heads], out=dq[heads])
        torch.bmm(ds.transpose(1, 2), scaled[heads], out=dk[heads])
    sizes = q.shape[:2]
    return dq.mul_(scale).unflatten(0, sizes), dk.unflatten(0, sizes), dv.unflatten(0, sizes)


@torch.library.register_fake("tubelet::attention_backward")
def _shapes(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


@register_flop_formula(torch.ops.tubelet.attention_backward)
def _operations(grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, q, k, v)
