"""One video file -> one clip, as a model wants it."""

from __future__ import annotations

from os import PathLike
from typing import Protocol

from torch import Tensor

from tubelet.clip import ClipGrid
from tubelet.data.reader import read_clip
from tubelet.data.transforms import Preprocess, resize_centre


class Sees(Protocol):
    """What a model says of the clips it takes."""

    @property
    def grid(self) -> ClipGrid: ...

    preprocess: Preprocess


def load_clip(video: str | PathLike[str], model: Sees, stride: int | None = None, reader: str = "auto") -> Tensor:
    """float [1,C,T,H,W] from the middle of a video file, sampled, resized, cropped and normalised as `model` wants it.

    `stride` is the distance of frames in the file; None: sampled as the model was trained. Raises VideoError if the
    file cannot be read.
    """
    grid = model.grid
    sampling = model.preprocess.frames(stride)
    frames = read_clip(video, lambda v: sampling.views(v.num_frames, v.fps, grid.frames, 1)[0], reader)
    clip = resize_centre(frames, (grid.height, grid.width), model.preprocess.short_side)  # [T,h,w,C]
    return model.preprocess.normalise(clip.permute(3, 0, 1, 2)[None])  # [1,C,T,h,w]
