"""Multi-head self-attention on PyTorch's fused kernel."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.layers.bfloat16_attention import BFloat16Attention
from tubelet.layers.frugal import linear_after
from tubelet.layers.short_attention import ShortAttention, joins

Bias = Literal["qkv", "qv", "none"]


def attend(q: Tensor, kv: Tensor, num_heads: int) -> Tensor:
    """Queries [B,M,D] over other tokens, whose keys and values lie side by side in kv [B,K,2*D] -> [B,M,D]."""
    q = q.unflatten(-1, (num_heads, -1)).transpose(1, 2)  # [B,heads,M,d]
    k, v = (part.transpose(1, 2) for part in kv.unflatten(-1, (2, num_heads, -1)).unbind(2))  # each [B,heads,K,d]
    return fused(q, k, v, q.shape[-1] ** -0.5).transpose(1, 2).flatten(2)


def fused(q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float = 0.0) -> Tensor:
    """softmax(scale * q k') v on the fastest kernel: [B,heads,M,d], twice [B,heads,K,d] -> [B,heads,M,d]."""
    trains_on_cpu = q.device.type == "cpu" and q.requires_grad and torch.is_grad_enabled()
    if trains_on_cpu and {q.dtype, k.dtype, v.dtype} == {torch.bfloat16} and not dropout:
        return BFloat16Attention.apply(q, k, v, scale)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scale)


class Attention(nn.Module):
    """[B,K,D] -> [B,K,D]. With `bias="qv"` queries and values have a bias and keys have none, as in BEiT and VideoMAE.

    `cosine=True` compares directions, with a learned temperature per head (VideoMAEv2's `cos_attn`, from Swin v2).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        bias: Bias = "qkv",
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        cosine: bool = False,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"width {dim} is not divisible by num_heads {num_heads}")
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias == "qkv")
        self.q_bias = nn.Parameter(torch.zeros(dim)) if bias == "qv" else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if bias == "qv" else None
        # the logarithm of the temperature, so that it stays positive while it is learned
        self.scale = nn.Parameter(torch.full((num_heads, 1, 1), 10.0).log()) if cosine else None
        self.proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, return_attention: bool = False, norm: nn.Module | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the tokens and, with `return_attention`, the attention probabilities [B,heads,K,K] (else None).

        The fused kernel does not return probabilities, so asking for them is slower. norm: as in `project`.
        """
        out, weights = self.mix(x, return_attention, norm)
        return self.dropout(self.proj(out)), weights

    def mix(
        self, x: Tensor, return_attention: bool = False, norm: nn.Module | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What `forward` returns, before the last linear layer."""
        qkv = self.project(x, norm).unflatten(-1, (3, self.num_heads, -1))  # [B,K,3,heads,d]
        scale = qkv.shape[-1] ** -0.5
        dropout = self.attention_dropout if self.training else 0.0
        if self.scale is None and not return_attention and not dropout and (count := joins(qkv)) > 1:
            mixed: Tensor = ShortAttention.apply(qkv, scale, count)
            return mixed, None
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # each [B,heads,K,d]
        if self.scale is not None:  # cosine attention: unit vectors, temperature at most 100
            # 4.6052 = log(100)
            q = F.normalize(q, dim=-1) * self.scale.clamp(max=4.6052).exp()
            k, scale = F.normalize(k, dim=-1), 1.0
        weights = None
        if return_attention:
            weights = (q * scale @ k.transpose(-2, -1)).softmax(dim=-1)
            out = F.dropout(weights, dropout) @ v
        else:
            out = fused(q, k, v, scale, dropout)
        return out.transpose(1, 2).flatten(2), weights

    def project(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """[B,K,D] -> queries, keys and values side by side [B,K,3*D]. `norm` is applied to x before, and its output
        is not kept for the backward pass (tubelet.layers.frugal).
        """
        bias = None
        if self.q_bias is not None and self.v_bias is not None:
            # zeros for the keys: a bias on them would add the same to all scores of a query: the softmax ignores it
            bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        return linear_after(norm, x, self.qkv, bias)
