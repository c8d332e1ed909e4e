"""TimeSformer: attention divided over time and space, joint, or over space alone.

Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?", https://arxiv.org/abs/2102.05095;
weights and options as in Hugging Face's `timesformer`, whose tokens are ordered (h w t) where ours are (t h w).

Where we differ: with a mask, attention runs on the visible rectangle [B,t,S]. With space-only attention the class token
is the mean of the frames' class tokens before the last norm, as in the original code (Hugging Face's code leaves it
out). There is still one token per patch, so that a decoder can read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.clip import ClipGrid
from tubelet.encoders.base import Encoder, EncoderOutput, drop_path_rates, sides
from tubelet.layers.attention import Attention, Bias
from tubelet.layers.block import Block, init_normal
from tubelet.layers.patch import TubeletEmbedding
from tubelet.layers.position import take_positions
from tubelet.masking import Mask

AttentionType = Literal["divided_space_time", "joint_space_time", "space_only"]


class DividedBlock(Block):
    """[B,1+t*S,D] -> [B,1+t*S,D] in three steps. First each patch attends to the same position at all times. Then each
    frame attends to itself and to its copy of the class token; the new class token is the mean of the copies. Then the
    MLP follows.

    The attentions it returns are the spatial ones, [B*t,heads,1+S,1+S].
    """

    def __init__(
        self, t: int, dim: int, num_heads: int, *, bias: Bias, eps: float, dropout: float, attention_dropout: float,
        **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            dim, num_heads, bias=bias, eps=eps, dropout=dropout, attention_dropout=attention_dropout,
            mlp_hidden_dropout=dropout, **settings,
        )  # fmt: skip
        self.t = t
        self.temporal_norm = nn.LayerNorm(dim, eps=eps)
        self.temporal_attn = Attention(dim, num_heads, bias, attention_dropout, dropout)
        self.temporal_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, return_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        cls, patches = x[:, :1], x[:, 1:].unflatten(1, (self.t, -1))  # [B,1,D], [B,t,S,D]

        # over time: a sequence per position
        tracks = patches.transpose(1, 2).flatten(0, 1)  # [B*S,t,D]
        branch = self.over_time(tracks, x.shape[1] > x.shape[2]).unflatten(0, (x.shape[0], -1))  # [B,S,t,D]
        patches = patches + branch.transpose(1, 2)

        # over space: a sequence per frame
        copies = cls[:, None].expand(-1, self.t, -1, -1)  # [B,t,1,D]
        frames = torch.cat([copies, patches], dim=2).flatten(0, 1)  # [B*t,1+S,D]
        branch, weights = self.attn(frames, return_attention, self.norm1)
        branch = self.drop_path(branch)
        x = self._joined(cls, patches, branch)
        again = lambda frames, branch: self._joined(*self._parts(frames), branch), (frames, branch)
        return x + self.drop_path(self.mlp(x, self.norm2, again)), weights

    def _parts(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """[B*t,1+S,D] -> the class token [B,1,D], of which each frame has a copy, and the patches [B,t,S,D]."""
        parts = frames.unflatten(0, (-1, self.t))
        return parts[:, 0, :1], parts[:, :, 1:]

    def _joined(self, cls: Tensor, patches: Tensor, branch: Tensor) -> Tensor:
        """[B,1,D] and [B,t,S,D] with the result of each frame [B*t,1+S,D] added -> [B,1+t*S,D]."""
        branch = branch.unflatten(0, (-1, self.t))
        cls = cls + branch[:, :, 0].mean(1, keepdim=True)
        return torch.cat([cls, (patches + branch[:, :, 1:]).flatten(1, 2)], dim=1)

    def over_time(self, tracks: Tensor, many: bool) -> Tensor:
        """Attention over time with both of its linear layers: [B*S,t,D] -> [B*S,t,D].

        many: a clip has more tokens than channels, so it pays to multiply the two weights first.
        """
        mixed, _ = self.temporal_attn.mix(tracks, norm=self.temporal_norm)
        first, dropout, second = self.temporal_attn.proj, self.temporal_attn.dropout, self.temporal_proj
        plain = type(first) is nn.Linear and type(second) is nn.Linear
        between = self.training and (dropout.p > 0 or self.drop_path.drops)
        if plain and many and not between:
            return F.linear(mixed, second.weight @ first.weight, F.linear(first.bias, second.weight, second.bias))
        return second(self.drop_path(dropout(first(mixed))))


class TimeSformer(Encoder):
    """Token 0 is the class token. Tubelets are one frame deep.

    Args:
        image_size: height and width of a frame in pixels, one number if square; divisible by `patch_size`.
        num_frames: frames of a clip.
        dim, depth, num_heads, mlp_ratio: width of a token, number of blocks, heads of each, hidden width / dim.
        attention_type: over time and space in turn (divided), over both at once (joint), or "space_only", which has no
            time positions.
        drop_path: rate of the last block, rising linearly from 0 at the first.
        init_std: deviation of the initial weights.
    """

    num_prefix_tokens = 1

    def __init__(
        self,
        image_size: int | Sequence[int] = 224,
        num_frames: int = 8,
        patch_size: int = 16,
        in_channels: int = 3,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        bias: Bias = "qkv",
        act: str = "gelu",
        eps: float = 1e-6,
        attention_type: AttentionType = "divided_space_time",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        if attention_type not in ("divided_space_time", "joint_space_time", "space_only"):
            raise ValueError(
                f"unknown attention_type '{attention_type}', "
                "expected divided_space_time, joint_space_time or space_only"
            )
        self.grid = ClipGrid(num_frames, *sides(image_size), 1, patch_size)  # tubelets of one frame
        self.dim = dim
        self.in_channels = in_channels
        self.attention_type = attention_type
        self.needs_rectangle = attention_type != "joint_space_time"
        self.uniform_states = attention_type != "space_only"
        self.patch_embed = TubeletEmbedding(self.grid, in_channels, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.zeros(1, 1 + self.grid.h * self.grid.w, dim))
        if attention_type == "space_only":
            self.time_positions = None
        else:
            self.time_positions = nn.Parameter(torch.zeros(1, self.grid.t, dim))
        self.dropout = nn.Dropout(dropout)
        settings: dict[str, Any] = {
            "mlp_ratio": mlp_ratio,
            "bias": bias,
            "act": act,
            "eps": eps,
            "dropout": dropout,
            "attention_dropout": attention_dropout,
        }
        self.blocks = nn.ModuleList(
            DividedBlock(self.grid.t, dim, num_heads, **settings, drop_path=rate)
            if attention_type == "divided_space_time"
            else Block(dim, num_heads, **settings, drop_path=rate, mlp_hidden_dropout=dropout)
            for rate in drop_path_rates(drop_path, depth)
        )
        self.norm = nn.LayerNorm(dim, eps=eps)
        init_normal(self, init_std)
        nn.init.trunc_normal_(self.cls_token, std=init_std)
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
        if self.needs_rectangle:
            self.check_rectangle(mask)
        flags = return_hidden_states, return_attentions
        if self.attention_type == "space_only":
            x, states, attentions = self._space_only(clip, mask, *flags)
        else:
            cls, patches = self.embed(clip, mask)
            x = torch.cat([cls, patches], dim=1)  # [B,1+V,D]
            x, states, attentions = self.run_blocks(self.blocks, x, *flags)
        x = self.norm(x)
        return EncoderOutput(x, states, attentions) if any(flags) else x

    def embed(self, clip: Tensor, mask: Mask | None) -> tuple[Tensor, Tensor]:
        """The class token [B,1,D] and the visible patches [B,V,D], with the positions in space and time added."""
        visible = None if mask is None else mask.visible
        space = self.positions[:, 1:].repeat(1, self.grid.t, 1)  # [1,N,D]
        patches = self.dropout(self.patch_embed(clip, visible) + take_positions(space, visible))
        if self.time_positions is not None:
            time = self.time_positions.repeat_interleave(self.grid.h * self.grid.w, dim=1)  # [1,N,D]
            patches = self.dropout(patches + take_positions(time, visible))
        cls = (self.cls_token + self.positions[:, :1]).expand(patches.shape[0], -1, -1)
        return self.dropout(cls), patches

    def _space_only(
        self, clip: Tensor, mask: Mask | None, return_hidden_states: bool, return_attentions: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
        """Run the blocks on each frame separately. Hidden states and attentions have B*t rows."""
        cls, patches = self.embed(clip, mask)
        t = self.grid.t
        copies = cls[:, None].expand(-1, t, -1, -1)  # [B,t,1,D]
        x = torch.cat([copies, patches.unflatten(1, (t, -1))], dim=2).flatten(0, 1)  # [B*t,1+S,D]
        x, states, attentions = self.run_blocks(self.blocks, x, return_hidden_states, return_attentions)
        x = x.unflatten(0, (-1, t))  # [B,t,1+S,D]
        return torch.cat([x[:, :, 0].mean(1, keepdim=True), x[:, :, 1:].flatten(1, 2)], dim=1), states, attentions
