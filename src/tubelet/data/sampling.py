"""Which frames of a video make a clip: pure functions of (frames in the file, frames of the clip, step), all to numbers
of frames.

dense      every `step`-th frame: one stretch of the video. It spans `(frames - 1) * step + 1` frames of the file.
segments   one frame of each of `frames` equal parts: the whole video (TSN, https://arxiv.org/abs/1608.00859).

`step` is a number of frames, not always whole where a frame rate is asked for; frames are then rounded to the nearest.
Where the file is shorter than a dense clip, `pad` decides: "clamp" repeats its last frame (VideoMAE's fine-tuning
loader does so; its pretraining loader repeats the last frame on the stride instead), "loop" starts again from its
first. Segments of a short file repeat frames by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from math import floor, inf
from typing import Literal, get_args

import numpy as np
import torch

Kind = Literal["dense", "segments"]
Pad = Literal["clamp", "loop"]
Times = np.ndarray | None
"""When each frame is shown, in seconds, float64 [frames]; None: at even distances."""


@dataclass(frozen=True)
class Sampling:
    """How clips are taken from videos.

    kind     dense or segments
    stride   of dense clips: frames of the file from one frame of the clip to the next
    fps      of dense clips, instead of the stride: frames per second of the clip, whatever rate the file has
    pad      what follows the last frame of a file that is too short for a dense clip: clamp or loop
    """

    kind: Kind = "dense"
    stride: int = 4
    fps: float | None = None
    pad: Pad = "clamp"

    def __post_init__(self) -> None:
        for name, value, known in (("sampling", self.kind, get_args(Kind)), ("pad", self.pad, get_args(Pad))):
            if value not in known:
                raise ValueError(f"{name} must be {' or '.join(known)}, got {value!r}")
        if self.stride < 1:
            raise ValueError(f"stride must be at least 1, got {self.stride}")
        if self.fps is not None and not 0 < self.fps < inf:
            raise ValueError(f"fps must be positive, got {self.fps}")

    def draw(
        self, num_frames: int, file_fps: float, frames: int, generator: torch.Generator, times: Times = None
    ) -> list[int]:
        """One random clip, for training. `times` of a variable frame rate say when each of the frames is shown, in
        seconds. Raises ValueError if a frame rate is asked for and the file has none.
        """
        if self.kind == "segments":
            return segments(num_frames, frames, generator)
        if self.fps is not None and times is not None:
            shown = on_show(times, self.fps)
            return [shown[n] for n in dense(len(shown), frames, 1, generator, self.pad)]
        return dense(num_frames, frames, self._step(file_fps), generator, self.pad)

    def views(self, num_frames: int, file_fps: float, frames: int, clips: int, times: Times = None) -> list[list[int]]:
        """`clips` fixed clips that together cover the video, for evaluation; a single one is of its middle."""
        if self.kind == "segments":
            return segment_views(num_frames, frames, clips)
        if self.fps is not None and times is not None:
            shown = on_show(times, self.fps)
            return [[shown[n] for n in view] for view in dense_views(len(shown), frames, 1, clips, self.pad)]
        return dense_views(num_frames, frames, self._step(file_fps), clips, self.pad)

    def stepped(self, file_fps: float, first: float = 0.0, times: Times = None) -> Iterator[int]:
        """The numbers of every frame that dense clips are made of, from frame `first` on: without end, or to the last
        frame of a variable frame rate, whose `times` begin at `first`. Raises ValueError for segments.
        """
        if self.kind == "segments":
            raise ValueError("segments cover a whole video: to cut it into windows, set a frame stride or a frame rate")
        if self.fps is not None and times is not None:
            yield from (round(first) + number for number in on_show(times, self.fps))
            return
        step = self._step(file_fps)
        for i in count():
            yield _round(first + i * step + 1e-6)  # a start in seconds is rarely a whole frame to the last digit

    def clip_from(self, start: float, num_frames: int, file_fps: float, frames: int, times: Times = None) -> list[int]:
        """The dense clip that begins `start` seconds after the first frame; after the end the last frame is repeated.
        Raises ValueError if the video has no frame there, or for segments.
        """
        first: float = span(num_frames, file_fps, start, times=times)[0]
        if self.fps is not None and times is not None and self.kind == "dense":
            shown, skipped = on_show(times, self.fps), round(start * self.fps)
            return [shown[min(skipped + i, len(shown) - 1)] for i in range(frames)]
        if self.fps is not None:  # by the clip's own clock: its frames need not be whole frames of the file apart
            first = start * file_fps
        return [min(number, num_frames - 1) for number in islice(self.stepped(file_fps, first), frames)]

    def _step(self, file_fps: float) -> float:
        if self.fps is None:
            return self.stride
        if not file_fps > 0:
            raise ValueError(f"data.fps is {self.fps}, but the file does not say its own frame rate")
        return file_fps / self.fps


def dense(num_frames: int, frames: int, step: float, generator: torch.Generator, pad: Pad = "clamp") -> list[int]:
    """Every `step`-th frame from a start drawn uniformly among those that fit: training."""
    starts = _starts(num_frames, frames, step)
    return _clip(int(torch.randint(starts, (), generator=generator)), num_frames, frames, step, pad)


def dense_views(num_frames: int, frames: int, step: float, clips: int, pad: Pad = "clamp") -> list[list[int]]:
    """Clips at equal distances, the first at the beginning of the video and the last at its end; one: its middle."""
    _check(clips=clips)
    last = _starts(num_frames, frames, step) - 1
    starts = [last // 2] if clips == 1 else [last * view // (clips - 1) for view in range(clips)]
    return [_clip(start, num_frames, frames, step, pad) for start in starts]


def centre(num_frames: int, frames: int, step: float, pad: Pad = "clamp") -> list[int]:
    """Every `step`-th frame from the middle of the video: validation."""
    return dense_views(num_frames, frames, step, 1, pad)[0]


def segments(num_frames: int, frames: int, generator: torch.Generator) -> list[int]:
    """A random frame of each of `frames` equal parts: training."""
    _check(num_frames=num_frames, frames=frames)
    offsets = torch.rand(frames, generator=generator, dtype=torch.float64).tolist()
    return [_of_part(i, offset, num_frames, frames) for i, offset in enumerate(offsets)]


def segment_views(num_frames: int, frames: int, clips: int) -> list[list[int]]:
    """View v of n takes the frame at v/n of each part; a single one the middle. So n views are n different clips, as
    long as a part has n frames: with two, VideoMAE's test clips of Something-Something v2.
    """
    _check(num_frames=num_frames, frames=frames, clips=clips)
    offsets = [0.5] if clips == 1 else [view / clips for view in range(clips)]
    return [[_of_part(i, offset, num_frames, frames) for i in range(frames)] for offset in offsets]


def on_show(times: np.ndarray, fps: float) -> list[int]:
    """Of a variable frame rate: the frame on show at each 1/fps of a second, from the first frame to the last."""
    moments = np.arange(floor((times[-1] - times[0]) * fps + 1e-6) + 1) / fps + times[0]
    return (np.searchsorted(times, moments + 1e-6, side="right") - 1).tolist()


def span(
    num_frames: int,
    fps: float,
    start: float | None = None,
    end: float | None = None,
    start_frame: int | None = None,
    end_frame: int | None = None,
    times: Times = None,
) -> tuple[int, int]:
    """The frames of a segment, (first, one behind the last): those from `start_frame` to before `end_frame`, or those
    shown from `start` to before `end`, in seconds after the first frame. Raises ValueError if there is none, or if
    nothing says when frames are shown.
    """
    if start_frame is not None or end_frame is not None:
        first, behind = start_frame or 0, num_frames if end_frame is None else min(end_frame, num_frames)
        if first >= behind:
            raise ValueError(f"has no frame from {first} on, it has {num_frames} frames")
        return first, behind
    if start is None and end is None:
        return 0, num_frames
    if times is None and not fps > 0:
        raise ValueError(
            "the manifest gives a start or end in seconds, but no frame rate is known: fill its fps column"
        )
    shown = np.arange(num_frames) / fps if times is None else times[:num_frames]
    early = 1e-3  # seconds: a start of 0.033 means the frame at 1/30
    first = int(np.searchsorted(shown, (start or 0.0) - early))
    behind = num_frames if end is None else int(np.searchsorted(shown, end - early))
    if first >= behind:
        until = "" if end is None else f" to {end:g}"
        raise ValueError(
            f"has no frame from second {start or 0.0:g}{until}: its {num_frames} frames end at {shown[-1]:g}"
        )
    return first, behind


def _of_part(part: int, offset: float, num_frames: int, frames: int) -> int:
    """The frame at `offset`, in [0, 1), of a part."""
    return min(int((part + offset) * num_frames / frames), num_frames - 1)


def _starts(num_frames: int, frames: int, step: float) -> int:
    """How many starts fit; at least one."""
    _check(num_frames=num_frames, frames=frames)
    if step <= 0:
        raise ValueError(f"stride must be positive, got {step}")
    return max(1, num_frames - _round((frames - 1) * step))


def _clip(start: int, num_frames: int, frames: int, step: float, pad: Pad) -> list[int]:
    numbers = [start + _round(i * step) for i in range(frames)]
    return [n % num_frames if pad == "loop" else min(n, num_frames - 1) for n in numbers]


def _round(x: float) -> int:
    """To the nearest whole number, halves up: Python's own rounding to even would make steps uneven."""
    return floor(x + 0.5)


def _check(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
