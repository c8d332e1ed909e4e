"""Pooling the tokens of a clip into one vector, by their mean or by attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from tubelet.layers.attention import attend
from tubelet.layers.block import Block, Mlp, init_weights
from tubelet.layers.stack import Stack


def mean_token(tokens: Tensor, prefix: int) -> Tensor:
    """[B,prefix+N,D] -> [B,D]: the mean of the tokens without the first `prefix` ones, the class tokens."""
    return tokens[:, prefix:].mean(1)


class AttentivePool(Stack):
    """[B,K,D] -> [B,D]: blocks of self-attention, then one learned query attends to all tokens, then an MLP.

    `depth` includes the block of the query. Depth 1 is the attentive probe of V-JEPA
    (https://arxiv.org/abs/2404.08471), depth 4 that of V-JEPA 2 (https://arxiv.org/abs/2506.09985).
    """

    def __init__(self, dim: int, num_heads: int, depth: int = 1) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"width {dim} is not divisible by pool_heads {num_heads}")
        if depth < 1:
            raise ValueError(f"pool_depth must be at least 1, got {depth}")
        self.num_heads = num_heads
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(depth - 1))
        self.query = nn.Parameter(torch.zeros(1, 1, dim))
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)
        self.apply(init_weights)
        nn.init.trunc_normal_(self.query, std=0.02)

    def layers(self) -> Sequence[nn.Module]:
        return [nn.Identity(), *self.blocks, self.mlp]  # Identity: nothing stands before the blocks

    def undecayed(self) -> Iterable[nn.Parameter]:
        return ()  # V-JEPA applies weight decay to the query, too

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x, _ = block(x)
        q = self.q(self.query).expand(x.shape[0], -1, -1)  # [B,1,D]
        x = self.query + self.proj(attend(q, self.kv(self.norm1(x)), self.num_heads))
        return (x + self.mlp(self.norm2(x)))[:, 0]
