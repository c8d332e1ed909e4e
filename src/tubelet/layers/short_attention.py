"""Attention in bfloat16 on the CPU over many sequences of a few tokens, as TimeSformer's 8 frames at one place.

A sequence of 8 tokens fills a quarter of a tile of the matrix units, and PyTorch's kernel spends its time on starting
products. Here a few sequences are joined to one of up to 32 tokens, in which a token attends to its own sequence only.
Queries, keys and values are copied once, together, and so are their gradients. The scores are computed again in the
backward pass. All rounding is that of bfloat16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_TILE = 32  # tokens of joined sequences


def joins(qkv: Tensor) -> int:
    """How many sequences of qkv [B,K,3,heads,d] are joined: the most that fit into a tile and divide B; 1: none.

    1 also wherever this is not the faster way: on another device, in another type, without a gradient.
    """
    trains = qkv.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if not trains or qkv.device.type != "cpu" or qkv.dtype != torch.bfloat16:
        return 1
    return next((count for count in range(_TILE // qkv.shape[1], 1, -1) if qkv.shape[0] % count == 0), 1)


class ShortAttention(torch.autograd.Function):
    """qkv [B,K,3,heads,d] -> [B,K,heads*d], with `count` sequences joined."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, scale: float, count: int) -> Tensor:
        ctx.save_for_backward(qkv)
        ctx.scale, ctx.count = scale, count
        q, k, v = _join(qkv, count)
        out = torch.bmm(_probabilities(q.mul_(scale), k, count), v)  # [B/count*heads,count*K,d]
        return _part(out[None], qkv, count).flatten(2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        (qkv,) = ctx.saved_tensors
        q, k, v = _join(qkv, ctx.count)
        (grad,) = _join(grad.unflatten(2, (1, *qkv.shape[3:])), ctx.count)
        p = _probabilities(q.mul_(ctx.scale), k, ctx.count)
        gradients = torch.empty(3, *q.shape, dtype=q.dtype)
        torch.bmm(p.transpose(1, 2), grad, out=gradients[2])
        ds = torch.bmm(grad, v.transpose(1, 2))
        ds.sub_((p * ds).sum(-1, keepdim=True)).mul_(p)  # through the softmax
        torch.bmm(ds, k, out=gradients[0])
        torch.bmm(ds.transpose(1, 2), q, out=gradients[1])
        gradients[0].mul_(ctx.scale)
        return _part(gradients, qkv, ctx.count), None, None


def _join(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """[B,K,n,heads,d] -> n of [B/count*heads,count*K,d], a copy."""
    parts = torch.einsum("sgknhd->nshgkd", x.unflatten(0, (-1, count)))
    return parts.clone(memory_format=torch.contiguous_format).flatten(3, 4).flatten(1, 2).unbind(0)


def _part(x: Tensor, like: Tensor, count: int) -> Tensor:
    """The inverse: [n,B/count*heads,count*K,d] -> [B,K,n,heads,d]; `like`: qkv."""
    parts = x.unflatten(2, (count, -1)).unflatten(1, (-1, like.shape[3]))
    return torch.einsum("nshgkd->sgknhd", parts).flatten(0, 1)


def _probabilities(q: Tensor, k: Tensor, count: int) -> Tensor:
    """softmax(q k') [n,count*K,count*K], 0 between the sequences that are joined."""
    sequence = torch.arange(count).repeat_interleave(k.shape[1] // count)
    apart = torch.zeros(len(sequence), len(sequence), dtype=k.dtype)
    apart.masked_fill_(sequence[:, None] != sequence, float("-inf"))
    return torch.baddbmm(apart, q, k.transpose(1, 2)).softmax(-1)
