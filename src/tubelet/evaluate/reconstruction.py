"""What a masked autoencoder sees, and what it fills in: original | masked | reconstructed."""

from __future__ import annotations

from os import PathLike
from typing import NamedTuple

import torch
from torch import Tensor

from tubelet.data.load_clip import load_clip
from tubelet.data.randomness import generator
from tubelet.layers.patch import cut, take
from tubelet.masking import Mask, frame, random, tube
from tubelet.models.mae import MaskedAutoencoder

GREY = 0.5


class Reconstruction(NamedTuple):
    """Three videos in [0, 1], float32 [B,T,H,W,C]. `borrowed`: the prediction is of normalised patches, shown with the
    true mean and deviation of each."""

    original: Tensor
    masked: Tensor
    reconstructed: Tensor
    borrowed: bool


@torch.no_grad()
def reconstruct(model: MaskedAutoencoder, clip: Tensor, mask: Mask) -> Reconstruction:
    """clip: normalised float [B,C,T,H,W]. Visible tubelets are shown as they are in all three."""
    pixels = model(clip, mask).pixels.float()  # [B,M,P]
    clip = clip.float()
    if model.norm_pix_loss:
        truth = model.hidden_pixels(clip, mask)  # [B,M,p,C]
        patches = pixels.unflatten(2, truth.shape[2:])
        patches = patches * (truth.std(2, keepdim=True) + 1e-6) + truth.mean(2, keepdim=True)
        pixels = patches.flatten(2)
    original = model.preprocess.denormalise(clip)
    masked = _fill(model, original, mask, torch.full_like(pixels, GREY))
    reconstructed = _fill(model, original, mask, pixels)
    original, masked, reconstructed = (v.clamp(0, 1).movedim(1, -1) for v in (original, masked, reconstructed))
    return Reconstruction(original, masked, reconstructed, borrowed=model.norm_pix_loss)


def _fill(model: MaskedAutoencoder, clip: Tensor, mask: Mask, pixels: Tensor) -> Tensor:
    """Write the patches `pixels` [B,M,P] over the hidden tubelets of `clip` [B,C,T,H,W]."""
    grid = model.grid
    tokens = take(cut(clip, grid), None).clone()  # [B,N,C,p0,p1,p2]
    patches = pixels.unflatten(2, (grid.tubelet, grid.patch, grid.patch, clip.shape[1]))  # [B,M,p0,p1,p2,C]
    tokens[torch.arange(len(clip), device=clip.device)[:, None], mask.hidden] = patches.movedim(-1, 2)
    tokens = tokens.unflatten(1, (grid.t, grid.h, grid.w))
    return torch.einsum("bthwcpqr->bctphqwr", tokens).reshape(clip.shape)


MASKINGS = {"tube": tube, "random": random, "frame": frame}


def reconstruct_file(
    model: MaskedAutoencoder, video: str | PathLike[str], masking: str = "tube", ratio: float = 0.9, seed: int = 0
) -> Reconstruction:
    """Reconstruct the middle of a video file under a mask drawn with `seed`. Raises ValueError for a masking that the
    model cannot take, VideoError for a file that cannot be read."""
    if not isinstance(model, MaskedAutoencoder):
        raise ValueError(
            f"only a masked autoencoder can reconstruct, this is a {type(model).__name__} without a decoder"
        )
    if masking not in MASKINGS:
        raise ValueError(f"unknown masking '{masking}', expected one of {', '.join(MASKINGS)}")
    hidden = MASKINGS[masking](model.grid, ratio, generator(seed, "reconstruct"))  # [N]
    return reconstruct(model, load_clip(video, model), Mask.from_hidden(hidden[None]))
