"""Features as colours: tokens that the encoder makes alike get the same colour, over space and over time.

The three largest principal components of the tokens are red, green and blue, as in DINOv2
(https://arxiv.org/abs/2304.07193). Where we differ: each place's mean over the clips is taken away first, because the
position is the largest part of a token in a small model, and it would be all that the picture shows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tubelet.encoders.base import Encoder

TAILS = 0.02  # share of the tokens beyond the darkest and beyond the brightest value of a colour


@torch.no_grad()
def feature_colours(encoder: Encoder, clip: Tensor) -> Tensor:
    """Normalised clips [B,C,T,H,W], without a mask -> float32 [B,T,H,W,3] in [0, 1]. The colours of one call compare
    with each other, those of two calls do not. Raises ValueError for an encoder that has fewer than three channels.
    """
    tokens = encoder(clip)
    assert isinstance(tokens, Tensor)
    grid = encoder.grid
    x = tokens[:, encoder.num_prefix_tokens :].float().cpu()  # [B,N,D]
    colours = _colours(x).unflatten(1, (grid.t, grid.h, grid.w))  # [B,t,h,w,3]
    for axis, times in ((1, grid.tubelet), (2, grid.patch), (3, grid.patch)):
        colours = colours.repeat_interleave(times, dim=axis)
    return colours


def _colours(x: Tensor) -> Tensor:
    """Tokens [B,N,D] -> [B,N,3] in [0, 1]."""
    if x.shape[2] < 3:
        raise ValueError(f"three colours need tokens of at least 3 channels, these have {x.shape[2]}")
    x = x - x.mean((0, 1) if len(x) == 1 else 0)  # of a single clip, the mean over everything
    flat = x.flatten(0, 1).double()
    axes = torch.linalg.eigh(flat.T @ flat).eigenvectors[:, -3:].flip(1)  # [D,3], the largest first
    # the sign of an axis is free: here the largest entry is positive
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    values = (flat @ axes).float()
    low, high = torch.quantile(values, torch.tensor([TAILS, 1 - TAILS]), dim=0)
    return ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1).unflatten(0, x.shape[:2])
