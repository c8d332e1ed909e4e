"""One video, decoded once from start to end, as windows of frames: constant memory, however long it is.

A video is first sampled (every `stride`-th frame of the file, or a frame rate), then cut: window k begins at sampled
frame k * stride of the windows and has `window` frames. Overlapping windows share the frames that were decoded. The
last window is the first that reaches the end of the video; frames that it lacks repeat the last one, and `valid` says
how many are real. So every sampled frame is in a window, unless the windows are further apart than they are long.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tubelet.data.manifest import Record
from tubelet.data.reader import Shrink, Video, VideoError, frame_times, open_video
from tubelet.data.reader.pyav import PyavVideo
from tubelet.data.sampling import Sampling, span


class Moment(NamedTuple):
    """A sampled frame uint8 [h,w,C], and when it is shown, in seconds after the first frame of the video (NaN if
    nothing says so). At the `end` of a video: when it ends, and the frame that a window repeats if it lacks some.
    """

    time: float
    picture: Tensor
    end: bool = False


@dataclass(frozen=True)
class Window:
    """`clip` uint8 [T,h,w,C], shown from second `start` to `end`; of its frames the first `valid` are in the video, the
    others repeat the last one.
    """

    clip: Tensor
    start: float
    end: float
    valid: int


class VideoWindows:
    """The windows of a file, or of the segment that a record names, in order: iterate once.

    Afterwards `duration` is where the video ends in seconds (NaN if nothing says so) and `num_frames` how many frames
    were decoded. `fps` is its frame rate, 0 if it has none; known from the first window on.

    Args:
        video: a path, or a record of a manifest.
        sampling: of `window_sampling`; shrink: of `Preprocess.shrinker`.
        window: frames of one; stride: sampled frames from one window to the next.
        threads: of the decoder.

    Raises VideoError where the file cannot be read, also after some windows.
    """

    def __init__(
        self,
        video: str | PathLike[str] | Record,
        sampling: Sampling,
        shrink: Shrink,
        window: int,
        stride: int,
        threads: int = 1,
    ) -> None:
        self.record = video if isinstance(video, Record) else Record(str(video))
        self.sampling, self.shrink, self.window, self.stride = sampling, shrink, window, stride
        self.threads, self.fps, self.num_frames, self.duration = threads, 0.0, 0, math.nan

    def __iter__(self) -> Iterator[Window]:
        return cut(self.moments(), self.window, self.stride)

    def moments(self) -> Iterator[Moment]:
        """The sampled frames, decoded from the start of the file, and the end."""
        record, sampling = self.record, self.sampling
        if record.status not in (None, "ok"):
            raise VideoError(record.path, record.status or "")
        with open_video(record.path, "pyav") as video:
            if isinstance(video, PyavVideo):
                video.use_threads(self.threads)
            fps = self.fps = record.fps or video.fps
            try:
                first, behind, wanted = _wanted(record, video, sampling, fps)
                target = next(wanted)
            except ValueError as error:
                raise error if isinstance(error, VideoError) else VideoError(record.path, str(error)) from error
            origin: float | None = None  # when the first frame of the segment is shown
            index = 0
            for number, time, picture in shown_frames(video, fps):
                if number >= behind:
                    break
                last = picture
                origin = time if origin is None and number >= first else origin
                self.num_frames, self.duration = number + 1, time + 1 / fps if fps else math.nan
                if number == target:
                    small = shrunk(picture, self.shrink)
                while number == target:
                    yield Moment(time if sampling.fps is None else (origin or 0.0) + index / sampling.fps, small)
                    index, target = index + 1, next(wanted, -1)
            if index == 0:
                raise VideoError(record.path, "has no frame that can be decoded")
            # as `load_clip` does: the last frame of the file, or the last on show where the frame rate varies
            yield Moment(self.duration, small if target < 0 else shrunk(last, self.shrink), end=True)


def window_sampling(trained: Sampling, frame_stride: int | None = None, fps: float | None = None) -> Sampling:
    """How a video is sampled before it is cut: every `frame_stride`-th frame of the file, `fps` frames per second, or
    by default as the model was trained. Raises ValueError if that was on segments, which are no windows.
    """
    if frame_stride is not None and fps is not None:
        raise ValueError(f"frame stride {frame_stride} and {fps:g} frames per second cannot both be set")
    if frame_stride is not None and frame_stride < 1:
        raise ValueError(f"frame stride must be at least 1, got {frame_stride}")
    if frame_stride is not None:
        return Sampling("dense", frame_stride)
    if fps is None and trained.kind == "segments":
        raise ValueError("the model was trained on segments, which cover a whole video: set a frame stride or a rate")
    return trained if fps is None else Sampling("dense", fps=fps)


def cut(frames: Iterable[Moment], window: int, stride: int) -> Iterator[Window]:
    """Windows of `window` frames, one every `stride` frames. A window is handed on with the frame after it, which says
    when it ends.
    """
    for name, value in (("window", window), ("stride", stride)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    held: deque[Moment] = deque(maxlen=window)
    seen, start, covered = 0, 0, 0  # frames seen, first of the next window, one behind the last window
    for moment in frames:
        if seen == start + window:
            yield _joined(list(held), window, moment)
            start, covered = start + stride, seen
        if not moment.end:
            held.append(moment)
            seen += 1
        elif max(start, covered) < seen:
            yield _joined(list(held)[-(seen - start) :], window, moment)


def _joined(frames: list[Moment], window: int, following: Moment) -> Window:
    pictures = [frame.picture for frame in frames] + [following.picture] * (window - len(frames))
    return Window(torch.stack(pictures), frames[0].time, following.time, len(frames))  # [T,h,w,C]


def shrunk(picture: Callable[[], Tensor], shrink: Shrink) -> Tensor:
    return shrink(picture()[None])[0, 0]  # [1,H,W,C] -> [1,1,h,w,C] -> [h,w,C]


def _wanted(record: Record, video: Video, sampling: Sampling, fps: float) -> tuple[int, float, Iterator[int]]:
    """The first frame, the one behind the last (or infinity), and the numbers of those to take."""
    in_seconds = record.start is not None or record.end is not None
    times = frame_times(record.path) if sampling.fps is not None or in_seconds else None
    first, behind = 0, math.inf if record.num_frames is None else record.num_frames
    if any(value is not None for value in record.segment):
        first, behind = span(record.num_frames or video.num_frames, fps, *record.segment, times)
    if times is not None:
        times = times[first : None if behind == math.inf else int(behind)]
    return first, behind, sampling.stepped(fps, first, times)


def shown_frames(video: Video, fps: float) -> Iterator[tuple[int, float, Callable[[], Tensor]]]:
    """(number, seconds after the first frame, what makes its picture uint8 [H,W,C]) of every frame."""
    if not isinstance(video, PyavVideo):  # a directory of images
        for number in range(video.num_frames):
            yield number, number / fps if fps else math.nan, partial(_image, video, number)
        return
    zero: float | None = None
    time = 0.0
    for number, frame in enumerate(video.decoded()):
        zero = frame.time if zero is None else zero
        if frame.time is None or zero is None:
            time = number / fps if fps else math.nan
        else:
            time = max(time, frame.time - zero)  # some containers count back
        yield number, time, partial(_picture, video, frame)


def _image(video: Video, number: int) -> Tensor:
    return video.frames([number])[0]


def _picture(video: PyavVideo, frame: Any) -> Tensor:
    return torch.from_numpy(video.picture(frame))
