"""Where a model looks: the attention of its last block, laid over the frames.

With a class token, the row of that token; without, the mean over all queries. Mean over the heads.
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
from tubelet.evaluate.pictures import check_picture, side_by_side, write_film
from tubelet.models.base import encoder_of

_STRENGTH = 0.6  # of the heat over the picture, at most


@torch.no_grad()
def attention_map(encoder: Encoder, clip: Tensor) -> Tensor:
    """Normalised [1,C,T,H,W] -> [t,h,w], how much each token is looked at; float32, the largest 1.

    Where space and time are attended to in turn it is that of space, each time step by itself. Raises ValueError if the
    encoder's attention is not one over its tokens.
    """
    output = encoder(clip, return_attentions=True)
    assert isinstance(output, EncoderOutput)
    assert output.attentions is not None
    grid, prefix = encoder.grid, encoder.num_prefix_tokens
    frame, clip_tokens = prefix + grid.h * grid.w, prefix + grid.N
    for weights in reversed(output.attentions):  # [1,heads,K,K], or of each time step [t,heads,K,K]
        tokens = weights.shape[-1]
        if tokens in (frame, clip_tokens) and len(weights) * (tokens - prefix) == grid.N:
            rows = weights[:, :, 0] if prefix else weights.mean(2)  # [1|t,heads,K]
            looked = rows.float().mean(1)[:, prefix:].reshape(grid.t, grid.h, grid.w)
            return looked / looked.max()
    raise ValueError(f"the attention of {type(encoder).__name__} is not over the tokens of a clip: no picture of it")


def save_attention(model: Any, video: str | PathLike[str], path: str | Path, fps: float = 8.0) -> Path:
    """Write a film (.gif, .mp4): the middle of the video, and the same under the attention of `model`.

    Raises ValueError if the ending is of no film, VideoError if the video cannot be read.
    """
    path = check_picture(path)
    if path.suffix == ".png":
        raise ValueError(f"cannot write '{path}': attention is a film, the ending must be .gif or .mp4")
    encoder = encoder_of(model)
    clip = load_clip(video, model)
    heat = F.interpolate(attention_map(encoder, clip)[None, None], clip.shape[2:], mode="trilinear")[0, 0]  # [T,H,W]
    pixels = model.preprocess.denormalise(clip)[0].movedim(0, -1).clamp(0, 1).numpy()  # [T,H,W,C]
    frames = [(one * 255).round().astype(np.uint8)[None] for one in (pixels, overlay(pixels, heat.numpy()))]
    scale = max(1, round(192 / pixels.shape[1]))
    write_film(path, side_by_side(frames, ("original", "attention"), scale), fps)
    return path


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """pixels [T,H,W,C] in [0, 1] under heat [T,H,W] in [0, 1]: what is looked at glows, the rest stays."""
    from matplotlib import colormaps

    colour = colormaps["inferno"](heat)[..., :3]
    share = _STRENGTH * heat[..., None]
    return pixels[..., :3] * (1 - share) + colour * share
