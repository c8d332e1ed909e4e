"""ViViT: joint space-time attention with a class token (model 1), and the factorised encoder (model 2).

Arnab et al., "ViViT: A Video Vision Transformer", https://arxiv.org/abs/2103.15691; weights and options of model 1 as
in Hugging Face's `vivit`.

Where we differ: for masked autoencoding the factorised encoder also returns patch tokens. Each is the sum of the
spatial encoder's output for the patch and the temporal encoder's output for its time step. The class token is the
paper's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tubelet.clip import ClipGrid
from tubelet.encoders.base import Encoder, EncoderOutput, drop_path_rates, sides
from tubelet.layers.attention import Bias
from tubelet.layers.block import ACTIVATIONS, Block, init_normal
from tubelet.layers.patch import TubeletEmbedding
from tubelet.layers.position import take_positions
from tubelet.masking import Mask


class Pooler(nn.Module):
    """The pooler of the published bare model: act(dense(class token)), [B,K,D] -> [B,out]."""

    def __init__(self, dim: int, out: int, act: str) -> None:
        super().__init__()
        if act not in ACTIVATIONS:
            raise ValueError(f"unknown activation '{act}', expected one of {', '.join(ACTIVATIONS)}")
        self.act = act
        self.dense = nn.Linear(dim, out)

    def forward(self, tokens: Tensor) -> Tensor:
        return ACTIVATIONS[self.act](self.dense(tokens[:, 0]))


class ViViT(Encoder):
    """Model 1. Every token attends to every token; token 0 is the class token.

    Args:
        image_size: height and width of a frame in pixels, one number if square; divisible by `patch_size`.
        num_frames: frames of a clip, divisible by `tubelet_size`.
        dim, depth, num_heads, mlp_ratio: width of a token, number of blocks, heads of each, hidden width / dim.
        drop_path: rate of the last block, rising linearly from 0 at the first.
        init_std: deviation of the initial weights.
        pooler_dim, pooler_act: width and activation of `pooler`, a part of the published bare model; None: no pooler.
    """

    num_prefix_tokens = 1
    task_parts = ("norm", "pooler")

    def __init__(
        self,
        image_size: int | Sequence[int] = 224,
        num_frames: int = 32,
        patch_size: int = 16,
        tubelet_size: int = 2,
        in_channels: int = 3,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        bias: Bias = "qkv",
        act: str = "gelu_fast",
        eps: float = 1e-6,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        init_std: float = 0.02,
        pooler_dim: int | None = None,
        pooler_act: str = "tanh",
    ) -> None:
        super().__init__()
        self.grid = ClipGrid(num_frames, *sides(image_size), tubelet_size, patch_size)
        self.dim = dim
        self.in_channels = in_channels
        self.patch_embed = TubeletEmbedding(self.grid, in_channels, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.zeros(1, 1 + self.grid.N, dim))
        self.dropout = nn.Dropout(dropout)
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
            )
            for rate in drop_path_rates(drop_path, depth)
        )
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.pooler = None if pooler_dim is None else Pooler(dim, pooler_dim, pooler_act)
        init_normal(self, init_std)
        nn.init.trunc_normal_(self.positions, std=init_std)

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
        x = self.patch_embed(clip, visible) + take_positions(self.positions[:, 1:], visible)  # [B,V,D]
        cls = (self.cls_token + self.positions[:, :1]).expand(x.shape[0], -1, -1)
        x = self.dropout(torch.cat([cls, x], dim=1))  # [B,1+V,D]
        x, states, attentions = self.run_blocks(self.blocks, x, return_hidden_states, return_attentions)
        x = self.norm(x)
        return EncoderOutput(x, states, attentions) if return_hidden_states or return_attentions else x


class FactorisedViViT(Encoder):
    """Model 2. A spatial encoder reads each time step separately, with a class token. A temporal encoder reads these
    class tokens and adds its own, which is token 0 of the output.

    `blocks` holds the `depth` blocks of the spatial encoder, then the `temporal_depth` blocks of the temporal encoder.
    Hidden states and attentions have the same order; the spatial ones have B*t rows. Other arguments as in `ViViT`.
    """

    num_prefix_tokens = 1
    needs_rectangle = True
    uniform_states = False

    def __init__(
        self,
        image_size: int | Sequence[int] = 224,
        num_frames: int = 32,
        patch_size: int = 16,
        tubelet_size: int = 2,
        in_channels: int = 3,
        dim: int = 768,
        depth: int = 12,
        temporal_depth: int = 4,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        bias: Bias = "qkv",
        act: str = "gelu_fast",
        eps: float = 1e-6,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        self.grid = ClipGrid(num_frames, *sides(image_size), tubelet_size, patch_size)
        self.dim = dim
        self.depth = depth
        self.in_channels = in_channels
        self.patch_embed = TubeletEmbedding(self.grid, in_channels, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.time_cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.zeros(1, 1 + self.grid.h * self.grid.w, dim))
        self.time_positions = nn.Parameter(torch.zeros(1, 1 + self.grid.t, dim))
        self.dropout = nn.Dropout(dropout)
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
            )
            for rate in drop_path_rates(drop_path, depth + temporal_depth)
        )
        self.spatial_norm = nn.LayerNorm(dim, eps=eps)
        self.norm = nn.LayerNorm(dim, eps=eps)
        init_normal(self, init_std)
        nn.init.trunc_normal_(self.positions, std=init_std)
        nn.init.trunc_normal_(self.time_positions, std=init_std)

    def layers(self) -> Sequence[nn.Module]:
        # both norms come after the blocks, so they learn at the rate of the head
        return [self.patch_embed, *self.blocks, nn.ModuleList([self.spatial_norm, self.norm])]

    def forward(
        self,
        clip: Tensor,
        mask: Mask | None = None,
        return_hidden_states: bool = False,
        return_attentions: bool = False,
    ) -> Tensor | EncoderOutput:
        self.check_rectangle(mask)
        visible, t = None if mask is None else mask.visible, self.grid.t
        flags = return_hidden_states, return_attentions
        table = self.positions[:, 1:].repeat(1, t, 1)  # [1,N,D]
        x = self.patch_embed(clip, visible) + take_positions(table, visible)  # [B,t*S,D]

        # spatial encoder: a sequence per time step
        x = x.unflatten(1, (t, -1)).flatten(0, 1)  # [B*t,S,D]
        cls = (self.cls_token + self.positions[:, :1]).expand(x.shape[0], -1, -1)
        x = self.dropout(torch.cat([cls, x], dim=1))  # [B*t,1+S,D]
        x, states, attentions = self.run_blocks(self.blocks[: self.depth], x, *flags)
        x = self.spatial_norm(x).unflatten(0, (-1, t))  # [B,t,1+S,D]

        # temporal encoder: a sequence of the time steps' class tokens
        cls = self.time_cls_token.expand(x.shape[0], -1, -1)
        steps = self.dropout(torch.cat([cls, x[:, :, 0]], dim=1) + self.time_positions)  # [B,1+t,D]
        steps, time_states, time_attentions = self.run_blocks(self.blocks[self.depth :], steps, *flags)

        patches = x[:, :, 1:] + steps[:, 1:, None]  # [B,t,S,D]
        x = self.norm(torch.cat([steps[:, :1], patches.flatten(1, 2)], dim=1))  # [B,1+t*S,D]
        if not any(flags):
            return x
        return EncoderOutput(
            x,
            states + time_states if states and time_states else None,
            attentions + time_attentions if attentions and time_attentions else None,
        )
