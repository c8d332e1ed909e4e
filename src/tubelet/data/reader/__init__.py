"""File and frame numbers -> uint8 [T,H,W,C] in RGB: decord, torchcodec or PyAV behind one function.

Frame n is the n-th frame that decoding from the start gives, upright as a player shows it: PyAV doing so (`pyav`) is
the referee. The others seek, and on some kinds of files end up elsewhere: "auto" looks at the kind of each file
(`tubelet.data.reader.kind`) and uses only readers that are right on it. `tubelet verify` also compares their frames and
writes the manifest's `reader` column. A directory of numbered images is a video too.

Decoders are imported and files are opened only in the process that reads them (decord deadlocks when a reader crosses a
fork, dmlc/decord#294), each with one thread, since the loader's workers already use every core.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

import numpy as np
from torch import Tensor

from tubelet.data.reader.decord import DecordVideo
from tubelet.data.reader.images import ImageDirectory
from tubelet.data.reader.kind import kind_of
from tubelet.data.reader.pyav import PyavVideo, SeekingPyavVideo
from tubelet.data.reader.torchcodec import TorchcodecVideo
from tubelet.data.reader.video import Shrink, Video, VideoError, first_line

__all__ = [
    "READERS",
    "Shrink",
    "Video",
    "VideoError",
    "available_readers",
    "check_reader",
    "count_frames",
    "frame_times",
    "open_video",
    "read_clip",
    "read_frames",
    "why_not",
]

log = logging.getLogger(__name__)

T = TypeVar("T")

READERS = ("pyav_seek", "decord", "torchcodec", "pyav")
"""Quickest first (docs/performance.md). `reader="auto"` takes the first that loads and is right on files of this kind,
and the next where it fails. `pyav` is right by definition; `tubelet verify` lets the others prove it file by file.
"""

_OPENERS: dict[str, Callable[[str], Video]] = {
    "pyav_seek": SeekingPyavVideo,
    "decord": DecordVideo,
    "torchcodec": TorchcodecVideo,
    "pyav": PyavVideo,
}


@cache
def why_not(reader: str) -> str | None:
    """Why this process cannot use the reader; None if it can. Loads its library."""
    try:
        if reader == "decord":
            importlib.import_module("decord")
        elif reader == "torchcodec":
            module = importlib.import_module("torchcodec")
            if getattr(module, "ffmpeg_major_version", 0) is None:  # older versions fail on import instead
                return "it finds no FFmpeg libraries that it could load"
        else:
            importlib.import_module("av")
    except (ImportError, OSError, RuntimeError) as error:
        return first_line(error)
    return None


def available_readers() -> list[str]:
    """The readers that load, in order of preference."""
    return [name for name in READERS if why_not(name) is None]


def check_reader(reader: str) -> None:
    """Raises ValueError if `reader` is unknown or cannot be loaded. Says once which one "auto" takes."""
    if reader == "auto":
        _announce_auto()
    elif reader not in _OPENERS:
        raise ValueError(f"reader must be auto or one of {', '.join(_OPENERS)}, got {reader!r}")
    elif reason := why_not(reader):
        raise ValueError(f"reader {reader} cannot be loaded: {reason}")


@cache
def _announce_auto() -> None:
    reasons: list[str] = []
    for name in READERS:
        if (reason := why_not(name)) is None:
            log.info("; ".join([f"videos are read with {name}", *reasons]))
            return
        reasons.append(f"{name} cannot be loaded: {reason}")
    raise ValueError("; ".join(["no video reader", *reasons]))


def open_video(path: str | os.PathLike[str], reader: str = "auto") -> Video:
    """Open for reading, in a `with`. Raises VideoError if no reader can, ValueError for an unknown reader."""
    return _first_to_succeed(path, reader, lambda video: video)


def read_clip(
    path: str | os.PathLike[str],
    choose: Callable[[Video], Sequence[int]],
    reader: str = "auto",
    shrink: Shrink | None = None,
) -> Tensor:
    """The frames that `choose` names on seeing the opened video: uint8 [T,H,W,C] at the file's own size, or what
    `shrink` makes of each, so that a long clip of large frames never lies in memory as a whole.

    With "auto" a reader that opens the file but cannot decode those frames gives way to the next: decord 0.6 cannot
    hand out frames of some widths under 64. Raises VideoError.
    """

    def read(video: Video) -> Tensor:
        with video:
            try:
                numbers = choose(video)
            except ValueError as error:  # a frame rate is asked for, and the file has none
                raise error if isinstance(error, VideoError) else VideoError(path, str(error)) from error
            return video.frames(numbers) if shrink is None else video.shrunk(numbers, shrink)

    return _first_to_succeed(path, reader, read)


def read_frames(path: str | os.PathLike[str], numbers: Sequence[int], reader: str = "auto") -> Tensor:
    """uint8 [T,H,W,C] at the file's own size. Raises VideoError."""
    return read_clip(path, lambda video: numbers, reader)


def count_frames(path: str | os.PathLike[str], reader: str = "auto") -> int:
    """The frames the container promises. Raises VideoError."""
    with open_video(path, reader) as video:
        return video.num_frames


def frame_times(path: str | os.PathLike[str]) -> np.ndarray | None:
    """When each frame is shown, in seconds after the first, float64 [frames], if the frame rate varies; else None.
    Raises VideoError if the file cannot be opened.
    """
    return None if os.path.isdir(path) else kind_of(os.fspath(path)).times


def _first_to_succeed(path: str | os.PathLike[str], reader: str, use: Callable[[Video], T]) -> T:
    check_reader(reader)
    file = os.fspath(path)
    if ":" in file:
        file = os.path.abspath(file)  # to FFmpeg 12:30.mp4 is an address on the network
    if not os.path.exists(file):
        raise VideoError(path, "no such file")
    if os.path.isdir(file):
        return use(ImageDirectory(file))
    if not os.path.isfile(file):
        raise VideoError(path, "is not a file")
    if os.path.getsize(file) == 0:
        raise VideoError(path, "is empty")
    if reader != "auto":
        return use(_OPENERS[reader](file))
    reasons = []
    for name in kind_of(file).readers:
        if why_not(name) is None:
            try:
                return use(_OPENERS[name](file))
            except VideoError as error:
                reasons.append(f"{name}: {error.reason}")
    raise VideoError(path, "; ".join(reasons))
