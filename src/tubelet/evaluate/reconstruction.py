"""Reconstructions: the original clip, the part that a masked model sees, and what it predicts."""

from __future__ import annotations

from os import PathLike
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tubelet.data.load_clip import load_clip
from tubelet.data.randomness import generator
from tubelet.evaluate.device import device_of
from tubelet.layers.patch import cut, take
from tubelet.masking import Mask, MaskGenerator
from tubelet.models.masked import MaskedModel
from tubelet.targets.base import Visible

GREY = 0.5


class Reconstruction(NamedTuple):
    """Three videos in [0, 1], float32 [B,T,H,W,C], and the caption of the third."""

    original: Tensor
    masked: Tensor
    reconstructed: Tensor
    caption: str


def can_reconstruct(model: Any) -> bool:
    """Whether the model predicts something that can be drawn."""
    return isinstance(model, MaskedModel) and isinstance(model.target, Visible)


@torch.no_grad()
def reconstruct(model: MaskedModel, clip: Tensor, mask: Mask) -> Reconstruction:
    """clip: normalised float [B,C,T,H,W]. Visible tubelets are the same in all three videos. Raises ValueError if the
    model does not predict anything that can be drawn.
    """
    target = _target_of(model)
    # here, too, because the picture must show the same tokens as `prediction` has
    mask = model.decoder.choose(mask)
    prediction = model(clip, mask).prediction.float()  # [B,M,P]
    clip = clip.float()
    pixels = target.to_pixels(prediction, clip, mask)  # [B,M,p0*p1*p2*C]
    original = model.preprocess.denormalise(clip)
    masked = _fill(model, original, mask, torch.full_like(pixels, GREY))
    reconstructed = _fill(model, original, mask, pixels)
    original, masked, reconstructed = (v.clamp(0, 1).movedim(1, -1) for v in (original, masked, reconstructed))
    return Reconstruction(original, masked, reconstructed, target.caption)


def _target_of(model: Any) -> Visible:
    """Raises ValueError if the model does not predict anything that can be drawn."""
    if not isinstance(model, MaskedModel):
        raise ValueError(f"only a masked model can reconstruct, this is a {type(model).__name__} without a decoder")
    if not isinstance(model.target, Visible):
        raise ValueError(f"this model predicts {type(model.target).__name__}, which cannot be seen as pixels")
    return model.target


def _fill(model: MaskedModel, clip: Tensor, mask: Mask, pixels: Tensor) -> Tensor:
    """Write the patches `pixels` [B,M,p0*p1*p2*C] over the hidden tubelets of `clip` [B,C,T,H,W]."""
    grid = model.grid
    tokens = take(cut(clip, grid), None).clone()  # [B,N,C,p0,p1,p2]
    patches = pixels.unflatten(2, (grid.tubelet, grid.patch, grid.patch, clip.shape[1]))  # [B,M,p0,p1,p2,C]
    tokens[torch.arange(len(clip), device=clip.device)[:, None], mask.hidden] = patches.movedim(-1, 2)
    tokens = tokens.unflatten(1, (grid.t, grid.h, grid.w))
    return torch.einsum("bthwcpqr->bctphqwr", tokens).reshape(clip.shape)


def reconstruct_file(
    model: MaskedModel, video: str | PathLike[str], masking: MaskGenerator, seed: int = 0
) -> Reconstruction:
    """Reconstruct the clip in the middle of a video file, with a mask drawn from `seed`. Raises ValueError if the model
    cannot reconstruct or cannot take such a mask, VideoError if the file cannot be read.
    """
    _target_of(model)
    model.check_masking(masking)
    hidden = masking(model.grid, generator=generator(seed, "reconstruct"))  # [N], or [2,N] of dual masking
    device = device_of(model)
    return reconstruct(model, load_clip(video, model).to(device), Mask.from_hidden(hidden[None]).to(device))
