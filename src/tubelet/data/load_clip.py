"""One video file -> one clip, as a model wants it."""

from __future__ import annotations

from os import PathLike
from typing import Protocol

from torch import Tensor

from tubelet.clip import ClipGrid
from tubelet.data.reader import Video, frame_times, read_clip
from tubelet.data.transforms import Preprocess


class TakesClips(Protocol):
    """What a model says of the clips it takes."""

    @property
    def grid(self) -> ClipGrid: ...

    preprocess: Preprocess


def load_clip(video: str | PathLike[str], model: TakesClips, stride: int | None = None, reader: str = "auto") -> Tensor:
    """float [1,C,T,H,W] from the middle of a video file, sampled, resized, cropped and normalised as `model` wants it.

    `stride` is the distance of frames in the file; None: sampled as the model was trained. Raises VideoError if the
    file cannot be read.
    """
    grid = model.grid
    sampling = model.preprocess.frames(stride)

    def choose(opened: Video) -> list[int]:
        times = frame_times(opened.path) if sampling.fps else None
        return sampling.views(opened.num_frames, opened.fps, grid.frames, 1, times)[0]

    shrink = model.preprocess.shrinker((grid.height, grid.width))
    clip = read_clip(video, choose, reader, shrink)  # [T,1,h,w,C]
    return model.preprocess.normalise(clip.permute(1, 4, 0, 2, 3))  # [1,C,T,h,w]
