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


def load_clip(
    video: str | PathLike[str],
    model: TakesClips,
    stride: int | None = None,
    reader: str = "auto",
    start: float | None = None,
) -> Tensor:
    """float [1,C,T,H,W] from a video file, sampled, resized, cropped and normalised as `model` wants it.

    `stride` is the distance of frames in the file; None: sampled as the model was trained. The clip begins `start`
    seconds after the first frame, and repeats the last frame after the end; None: it is the middle of the video. Raises
    VideoError if the file cannot be read or has no frame at `start`.
    """
    grid = model.grid
    sampling = model.preprocess.frames(stride)

    def choose(opened: Video) -> list[int]:
        times = frame_times(opened.path) if sampling.fps or start is not None else None
        if start is not None:
            return sampling.clip_from(start, opened.num_frames, opened.fps, grid.frames, times)
        return sampling.views(opened.num_frames, opened.fps, grid.frames, 1, times)[0]

    shrink = model.preprocess.shrinker((grid.height, grid.width))
    clip = read_clip(video, choose, reader, shrink)  # [T,1,h,w,C]
    return model.preprocess.normalise(clip.permute(1, 4, 0, 2, 3))  # [1,C,T,h,w]
