"""Position tables, and how they are resized for other clip sizes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int, int]
"""Time steps, rows and columns of a table; 1 where the table does not depend on that axis."""


def sincos(length: int, dim: int) -> Tensor:
    """Fixed sine-cosine table [1,length,dim] over the flattened tokens: sine in even columns, cosine in odd ones.

    Source: VideoMAE (https://arxiv.org/abs/2203.12602), after "Attention is all you need".
    """
    # computed in float64, as the original does in numpy, so that the rounded table is equal to the bit
    position = torch.arange(length, dtype=torch.float64)[:, None]
    column = torch.arange(dim, dtype=torch.float64)
    angle = position / 10000 ** (2 * (column // 2) / dim)  # [length,dim]
    angle[:, 0::2] = angle[:, 0::2].sin()
    angle[:, 1::2] = angle[:, 1::2].cos()
    return angle.float()[None]


def sincos_3d(size: Size, dim: int) -> Tensor:
    """Fixed sine-cosine table [1,t*h*w,dim] with separate columns for the time, row and column of a token.

    A quarter of the columns encodes the time; rows and columns share the rest. Wavelengths are 2 pi to 200 pi tokens.
    With the table over flattened tokens a small model must first learn which tokens are neighbours; this table shows
    it (separate axes: V-JEPA, https://arxiv.org/abs/2404.08471, there with wavelengths up to 20000 pi).
    """
    if dim % 16:
        raise ValueError(f"a sincos_3d table needs a width divisible by 16, got {dim}")
    widths = (dim // 4, dim // 8 * 3, dim // 8 * 3)
    axes = []
    for length, width in zip(size, widths, strict=True):
        half = width // 2
        frequency = 100.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency  # [length,width/2]
        axes.append(torch.cat([angle.sin(), angle.cos()], dim=1))
    t, h, w = axes
    table = torch.cat(
        [
            t[:, None, None].expand(*size, -1),
            h[None, :, None].expand(*size, -1),
            w[None, None, :].expand(*size, -1),
        ],
        dim=-1,
    )  # [t,h,w,dim]
    return table.reshape(1, -1, dim).float()


def fixed_positions(kind: Literal["sincos", "sincos_3d"], size: Size, dim: int) -> Tensor:
    """The fixed (not learned) table [1,t*h*w,dim] of the given kind."""
    return sincos(size[0] * size[1] * size[2], dim) if kind == "sincos" else sincos_3d(size, dim)


def resize_table(table: Tensor, old: Size, new: Size) -> Tensor:
    """[1,t*h*w,D] -> [1,t'*h'*w',D], bicubic in space, then linear in time. Equal sizes change nothing."""
    if table.shape[1] != old[0] * old[1] * old[2]:
        raise ValueError(f"a table of {table.shape[1]} positions is not a grid of {old[0]}x{old[1]}x{old[2]}")
    x = table[0].unflatten(0, old)  # [t,h,w,D]
    if old[1:] != new[1:]:
        x = F.interpolate(x.permute(0, 3, 1, 2), new[1:], mode="bicubic", align_corners=False)  # [t,D,h',w']
        x = x.permute(0, 2, 3, 1)  # [t,h',w',D]
    if old[0] != new[0]:
        lines = x.flatten(1).T[None]  # [1,h'*w'*D,t]
        x = F.interpolate(lines, new[0], mode="linear", align_corners=False)[0].T  # [t',h'*w'*D]
    return x.reshape(1, new[0] * new[1] * new[2], table.shape[-1])


def take_positions(table: Tensor, tokens: Tensor | None) -> Tensor:
    """[1,N,D] and token numbers [B,K] -> [B,K,D]; the table itself, [1,N,D], if `tokens` is None."""
    return table if tokens is None else table[0, tokens]
