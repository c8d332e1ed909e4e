"""VideoMAE's encoder: a plain vision transformer over tubelets with joint space-time attention and no class token.

Tong et al., "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training",
https://arxiv.org/abs/2203.12602. Layer scale and cosine attention as in VideoMAEv2, https://arxiv.org/abs/2303.16727.
Only visible tubelets are embedded; the original embeds all of them and drops most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tubelet.clip import ClipGrid
from tubelet.encoders.base import Encoder, EncoderOutput, drop_path_rates, sides
from tubelet.layers.attention import Bias
from tubelet.layers.block import Block, init_weights
from tubelet.layers.patch import TubeletEmbedding
from tubelet.layers.position import fixed_positions, take_positions
from tubelet.masking import Mask


class VideoViT(Encoder):
    """VideoMAE's encoder. Its published sizes, tiny to giant, are files in conf/encoder.

    Args:
        image_size: height and width of a frame in pixels, one number if square; divisible by `patch_size`.
        num_frames: frames of a clip, divisible by `tubelet_size`.
        dim, depth, num_heads, mlp_ratio: width of a token, number of blocks, heads of each, hidden width / dim.
        bias: which of queries, keys and values have a bias; VideoMAE: "qv".
        position: fixed "sincos" over flattened tokens (VideoMAE), fixed "sincos_3d" (separate axes), or "learned".
        final_norm: a LayerNorm after the last block; off where a classifier pools by the mean and normalises after it.
        drop_path: rate of the last block, rising linearly from 0 at the first.
        layer_scale: initial value of layer scale, 0 for none.
        cosine_attention: attention by cosine similarity (VideoMAEv2).
    """

    def __init__(
        self,
        image_size: int | Sequence[int] = 224,
        num_frames: int = 16,
        patch_size: int = 16,
        tubelet_size: int = 2,
        in_channels: int = 3,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        bias: Bias = "qv",
        act: str = "gelu",
        eps: float = 1e-6,
        position: Literal["sincos", "sincos_3d", "learned"] = "sincos",
        final_norm: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float = 0.0,
        cosine_attention: bool = False,
    ) -> None:
        super().__init__()
        self.grid = ClipGrid(num_frames, *sides(image_size), tubelet_size, patch_size)
        self.dim = dim
        self.in_channels = in_channels
        self.patch_embed = TubeletEmbedding(self.grid, in_channels, dim)
        if position == "learned":
            self.positions = nn.Parameter(torch.zeros(1, self.grid.N, dim))
            nn.init.trunc_normal_(self.positions, std=0.02)
        else:
            # kept in checkpoints, because weights that were resized to another frame size have a stretched table
            size = (self.grid.t, self.grid.h, self.grid.w)
            self.register_buffer("positions", fixed_positions(position, size, dim))
        self.blocks = nn.ModuleList(
            Block(
                dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                bias=bias,
                act=act,
                eps=eps,
                dropout=dropout,
                attention_dropout=attention_dropout,
                drop_path=rate,
                layer_scale=layer_scale,
                cosine_attention=cosine_attention,
            )
            for rate in drop_path_rates(drop_path, depth)
        )
        self.norm = nn.LayerNorm(dim, eps=eps) if final_norm else nn.Identity()
        self.blocks.apply(init_weights)

    def layers(self) -> Sequence[nn.Module]:
        return [self.patch_embed, *self.blocks, self.norm]

    def forward(
        self,
        clip: Tensor,
        mask: Mask | None = None,
        return_hidden_states: bool = False,
        return_attentions: bool = False,
    ) -> Tensor | EncoderOutput:
        visible = None if mask is None else mask.visible
        x = self.patch_embed(clip, visible) + take_positions(self.positions, visible)  # [B,V,D]
        x, states, attentions = self.run_blocks(self.blocks, x, return_hidden_states, return_attentions)
        x = self.norm(x)
        return EncoderOutput(x, states, attentions) if return_hidden_states or return_attentions else x
