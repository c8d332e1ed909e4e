"""What the videos of all scenes share. Their frames are a pure function of (seed, split, class, index)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import av
import numpy as np

from tubelet.data.randomness import key

Range = tuple[float, float]
SIZE = 96  # pixels, both sides
FRAMES = 32
FPS = 16


@dataclass(frozen=True)
class Video:
    """One video. A scene is a subclass with its `labels` and its `frames`.

    Objects, backgrounds and sources of the split `val` never occur in `train`.
    """

    seed: int
    split: str
    action: str
    index: int

    labels: ClassVar[tuple[str, ...]]
    stream: ClassVar[str]
    """The first part of the keys of its random numbers."""

    @property
    def path(self) -> str:
        return f"{self.split}/{self.action}_{self.index:04d}.mp4"

    def frames(self) -> np.ndarray:
        """uint8 [T,H,W,C], RGB, of FRAMES frames and SIZE x SIZE pixels."""
        raise NotImplementedError

    def rng(self, *parts: int | str) -> np.random.Generator:
        return np.random.default_rng(key(self.stream, self.seed, self.split, *parts))

    def own(self, what: str) -> np.random.Generator:
        """For what is drawn anew for this video. Never for what the class changes."""
        return self.rng(self.action, self.index, what)


def to_uint8(colour: np.ndarray) -> np.ndarray:
    return np.round(255 * colour).astype(np.uint8)


def write_video(path: Path, frames: np.ndarray) -> None:
    """uint8 [T,H,W,C] RGB to an H.264 .mp4; the same frames give the same bytes: one thread, no dates, no mbtree."""
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as file:
        # with x264's macroblock tree, encoding twice gave different files for 4 in 10 videos of this size
        options = {"crf": "18", "preset": "veryfast", "g": "16", "threads": "1", "mbtree": "0"}
        stream = file.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
