"""Cutting a clip into tubelets, and embedding the visible ones.

The whole clip is never copied: `cut` returns a view, and `take` copies only the tubelets that are needed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.clip import ClipGrid


def cut(clip: Tensor, grid: ClipGrid) -> Tensor:
    """[B,C,T,H,W] -> view [B,t,h,w,C,p0,p1,p2]. Raises ValueError if the clip is not of the grid's size."""
    expected = (grid.frames, grid.height, grid.width)
    if clip.ndim != 5 or tuple(clip.shape[2:]) != expected:
        raise ValueError(f"expected a clip [B,C,{expected[0]},{expected[1]},{expected[2]}], got {list(clip.shape)}")
    tubelets = clip.unflatten(4, (grid.w, grid.patch))  # [B,C,T,H,w,p2]
    tubelets = tubelets.unflatten(3, (grid.h, grid.patch)).unflatten(2, (grid.t, grid.tubelet))  # [B,C,t,p0,h,p1,w,p2]
    return torch.einsum("bctphqwr->bthwcpqr", tubelets)  # a pure reorder: still a view


def take(tubelets: Tensor, tokens: Tensor | None) -> Tensor:
    """View [B,t,h,w,...] and token numbers [B,K] (None: all tokens) -> [B,K,...], a copy of those tubelets."""
    h, w = tubelets.shape[2:4]
    if tokens is None:
        return tubelets.flatten(1, 3)
    clips = torch.arange(tokens.shape[0], device=tokens.device)[:, None]
    return tubelets[clips, tokens // (h * w), tokens // w % h, tokens % w]


class TubeletEmbedding(nn.Module):
    """Linear embedding of tubelets: [B,C,T,H,W] -> [B,N,D], or [B,V,D] where only the visible ones are embedded.

    The weight has the layout of a 3-D convolution, [D,C,p0,p1,p2], because all checkpoints of this field have it.
    """

    def __init__(self, grid: ClipGrid, channels: int, dim: int) -> None:
        super().__init__()
        self.grid = grid
        size = (grid.tubelet, grid.patch, grid.patch)
        self.proj = nn.Conv3d(channels, dim, kernel_size=size, stride=size)
        # initialised as the linear layer that it is: the fan-out of a convolution would be larger
        nn.init.xavier_uniform_(self.proj.weight.view(dim, -1))
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def forward(self, clip: Tensor, visible: Tensor | None = None) -> Tensor:
        tubelets = take(cut(clip, self.grid), visible)  # [B,V,C,p0,p1,p2]
        # a matrix product instead of the convolution, which would have to embed hidden tubelets, too
        weight = self.proj.weight.flatten(1)
        return F.linear(tubelets.flatten(2).to(weight.dtype), weight, self.proj.bias)
