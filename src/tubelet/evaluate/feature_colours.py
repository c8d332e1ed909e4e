"""Features as colours: tokens that the encoder makes alike get the same colour, over space and over time.

The three largest principal components of the tokens are red, green and blue, as in DINOv2
(https://arxiv.org/abs/2304.07193). Where we differ: of several clips each place's mean over them may be taken away
first. In a small model that has not learned much, the position is the largest part of a token, and it would be all that
the picture shows. Of two clips, each would then be the negative of the other, so of single videos it is not done.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tubelet.data.load_clip import load_clip
from tubelet.encoders.base import Encoder
from tubelet.evaluate.device import device_of
from tubelet.evaluate.pictures import check_picture, save_videos
from tubelet.models.base import encoder_of

TAILS = 0.02  # share of the tokens beyond the darkest and beyond the brightest value of a colour


@torch.no_grad()
def feature_colours(encoder: Encoder, clip: Tensor, by_place: bool = True) -> Tensor:
    """Normalised clips [B,C,T,H,W], without a mask -> float32 [B,T,H,W,3] in [0, 1]. The colours of one call compare
    with each other, those of two calls do not. by_place: take away the mean of each place over the clips, not the mean
    of everything. Raises ValueError for an encoder that has fewer than three channels.
    """
    tokens = encoder(clip)
    assert isinstance(tokens, Tensor)
    grid = encoder.grid
    x = tokens[:, encoder.num_prefix_tokens :].float().cpu()  # [B,N,D]
    colours = _colours(x, by_place).unflatten(1, (grid.t, grid.h, grid.w))  # [B,t,h,w,3]
    for axis, times in ((1, grid.tubelet), (2, grid.patch), (3, grid.patch)):
        colours = colours.repeat_interleave(times, dim=axis)
    return colours


def _colours(x: Tensor, by_place: bool) -> Tensor:
    """Tokens [B,N,D] -> [B,N,3] in [0, 1]."""
    if x.shape[2] < 3:
        raise ValueError(f"three colours need tokens of at least 3 channels, these have {x.shape[2]}")
    x = x - x.mean(0 if by_place and len(x) > 1 else (0, 1))
    flat = x.flatten(0, 1).double()
    axes = torch.linalg.eigh(flat.T @ flat).eigenvectors[:, -3:].flip(1)  # [D,3], the largest first
    # the sign of an axis is free: here the largest entry is positive
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    values = (flat @ axes).float()
    low, high = torch.quantile(values, torch.tensor([TAILS, 1 - TAILS]), dim=0)
    return ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1).unflatten(0, x.shape[:2])


def save_colours(model: Any, videos: Sequence[str | PathLike[str]], path: str | Path) -> Path:
    """Draw the middle clip of each video beside its features as colours, which compare between the videos. The ending
    of `path` chooses the kind of picture, as in `save_videos`. Raises VideoError for a video that cannot be read.
    """
    path, encoder = check_picture(path), encoder_of(model)
    clip = torch.cat([load_clip(video, model) for video in videos])  # [B,C,T,H,W]
    original = model.preprocess.denormalise(clip).clamp(0, 1).movedim(1, -1)
    colours = feature_colours(encoder, clip.to(device_of(encoder)), by_place=False)
    return save_videos([original, colours], ["original", "features as colours"], path)
