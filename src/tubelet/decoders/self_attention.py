"""VideoMAE's decoder: a narrow transformer over all tokens, where one learned token stands for each hidden one.

Tong et al., VideoMAE, https://arxiv.org/abs/2203.12602. Where we differ: with dual masking (`Mask.hidden` lists fewer
tokens than are hidden) it sees only the visible tokens and those to predict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tubelet.decoders.base import Decoder
from tubelet.encoders.base import Encoder
from tubelet.layers.attention import Bias
from tubelet.layers.block import Block, init_weights
from tubelet.layers.position import fixed_positions, take_positions
from tubelet.masking import Mask


class SelfAttentionDecoder(Decoder):
    """Args:
    encoder: the encoder whose tokens it reads.
    target_dim: P, the numbers to predict per token.
    dim, num_heads: width and number of heads; None: half the encoder's width, heads of 64 channels.
    depth, mlp_ratio: number of blocks, and their hidden width / dim.
    position: fixed position table over flattened tokens ("sincos", VideoMAE) or with separate axes ("sincos_3d").
    bias, act, eps, dropout, attention_dropout, layer_scale, cosine_attention: settings of the blocks.
    norm_eps: eps of the last LayerNorm; None: `eps`. Hugging Face's models have 1e-5 there.
    """

    positions: Tensor

    def __init__(
        self,
        encoder: Encoder,
        target_dim: int,
        dim: int | None = None,
        depth: int = 4,
        num_heads: int | None = None,
        mlp_ratio: float = 4.0,
        bias: Bias = "qv",
        position: Literal["sincos", "sincos_3d"] = "sincos",
        act: str = "gelu",
        eps: float = 1e-6,
        norm_eps: float | None = None,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        layer_scale: float = 0.0,
        cosine_attention: bool = False,
    ) -> None:
        super().__init__()
        dim = dim or encoder.dim // 2
        self.num_heads = num_heads or max(dim // 64, 1)
        blocks = [
            Block(
                dim,
                self.num_heads,
                mlp_ratio=mlp_ratio,
                bias=bias,
                act=act,
                eps=eps,
                dropout=dropout,
                attention_dropout=attention_dropout,
                layer_scale=layer_scale,
                cosine_attention=cosine_attention,
            )
            for _ in range(depth)
        ]
        # The blocks are built before this line: the order in which weights are drawn decides what a seed means.
        self.project = nn.Linear(encoder.dim, dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        grid = encoder.grid
        self.register_buffer("positions", fixed_positions(position, (grid.t, grid.h, grid.w), dim))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=eps if norm_eps is None else norm_eps)
        self.head = nn.Linear(dim, target_dim)
        self.blocks.apply(init_weights)
        self.head.apply(init_weights)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def layers(self) -> Sequence[nn.Module]:
        return [self.project, *self.blocks, self.head]

    def forward(self, tokens: Tensor, mask: Mask, states: Sequence[Tensor] = ()) -> Tensor:
        visible = self.project(tokens)  # [B,prefix+V,E]
        prefix = visible.shape[1] - mask.visible.shape[1]  # number of class tokens, which get no position
        # The order does not matter to attention, so hidden tokens are appended instead of put back in their places.
        x = torch.cat(
            [
                visible[:, :prefix],
                visible[:, prefix:] + take_positions(self.positions, mask.visible),
                self.mask_token + take_positions(self.positions, mask.hidden),
            ],
            dim=1,
        )  # [B,prefix+V+M,E]
        for block in self.blocks:
            x, _ = block(x)
        return self.head(self.norm(x[:, -mask.hidden.shape[1] :]))  # [B,M,P]
