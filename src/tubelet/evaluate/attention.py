"""Attention of the last block, drawn over the frames: it shows where a model looks.

With a class token this is the attention of that token; without one, the mean over all queries. Heads are averaged.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tubelet.data.load_clip import load_clip
from tubelet.encoders.base import Encoder, EncoderOutput
from tubelet.evaluate.device import device_of
from tubelet.evaluate.pictures import check_picture, side_by_side, write_film
from tubelet.models.base import encoder_of

_STRENGTH = 0.6  # largest opacity of the heat map over the picture


@torch.no_grad()
def attention_map(encoder: Encoder, clip: Tensor) -> Tensor:
    """Normalised [1,C,T,H,W] -> [t,h,w], how much attention each token gets; float32, scaled so that the largest is 1.

    If an encoder attends to space and time in turn, this is the attention over space, for each time step separately.
    Raises ValueError if the attention of the encoder is not over the tokens of the clip.
    """
    output = encoder(clip, return_attentions=True)
    assert isinstance(output, EncoderOutput)
    assert output.attentions is not None
    grid, prefix = encoder.grid, encoder.num_prefix_tokens
    frame, clip_tokens = prefix + grid.h * grid.w, prefix + grid.N
    # The last block whose attention is over tokens: a temporal encoder's last blocks attend over time steps.
    for weights in reversed(output.attentions):  # [1,heads,K,K], or of each time step [t,heads,K,K]
        tokens = weights.shape[-1]
        if tokens in (frame, clip_tokens) and len(weights) * (tokens - prefix) == grid.N:
            rows = weights[:, :, 0] if prefix else weights.mean(2)  # [1|t,heads,K]
            attended = rows.float().mean(1)[:, prefix:].reshape(grid.t, grid.h, grid.w)
            return attended / attended.max()
    raise ValueError(f"the attention of {type(encoder).__name__} is not over the tokens of a clip: no picture of it")


def save_attention(model: Any, video: str | PathLike[str], path: str | Path, fps: float = 8.0) -> Path:
    """Write a film (.gif, .mp4) of the middle of the video: the original, and the same with the attention of `model`.

    Raises ValueError if `path` does not end in .gif or .mp4, VideoError if the video cannot be read.
    """
    path = check_picture(path)
    if path.suffix == ".png":
        raise ValueError(f"cannot write '{path}': attention is a film, the ending must be .gif or .mp4")
    encoder = encoder_of(model)
    clip = load_clip(video, model).to(device_of(encoder))
    heat = F.interpolate(attention_map(encoder, clip)[None, None], clip.shape[2:], mode="trilinear")[0, 0]  # [T,H,W]
    pixels = model.preprocess.denormalise(clip)[0].movedim(0, -1).clamp(0, 1).cpu().numpy()  # [T,H,W,C]
    frames = [(one * 255).round().astype(np.uint8)[None] for one in (pixels, overlay(pixels, heat.cpu().numpy()))]
    scale = max(1, round(192 / pixels.shape[1]))  # small frames are enlarged
    write_film(path, side_by_side(frames, ("original", "attention"), scale), fps)
    return path


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """pixels [T,H,W,C] in [0, 1] under heat [T,H,W] in [0, 1]: pixels with much attention glow, the others stay."""
    from matplotlib import colormaps

    colour = colormaps["inferno"](heat)[..., :3]
    share = _STRENGTH * heat[..., None]
    return pixels[..., :3] * (1 - share) + colour * share
