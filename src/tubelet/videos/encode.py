"""One video, encoded again: H.264 in mp4, smaller, with key frames close together and no frame that training skips."""

from __future__ import annotations

import hashlib
import itertools
import os
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from tubelet.data.reader import Video, VideoError, open_video, read_frames
from tubelet.data.reader.pyav import PyavVideo
from tubelet.videos.processes import Report, heartbeat
from tubelet.videos.verify import Job, examine

T = TypeVar("T")

QUALITY = {"crf": "20", "preset": "fast", "coder": "cavlc"}
"""x264's. CAVLC instead of CABAC stores the same pictures in an eighth more bytes, and they decode in half the time."""
UNKNOWN_RATE = 25.0  # of files that do not say
ROUNDING = 2e-3  # seconds by which containers that count in milliseconds may be off


@dataclass(frozen=True)
class Settings:
    """short_side in pixels, gop in frames; fps None keeps every frame. Nothing is scaled up, in space or in time."""

    short_side: int = 256
    gop: int = 16
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.short_side < 2 or self.short_side % 2:
            raise ValueError(f"short_side must be even and at least 2, got {self.short_side}")
        if self.gop < 1 or (self.fps is not None and self.fps <= 0):
            raise ValueError(f"gop must be at least 1 and fps positive, got {self.gop} and {self.fps}")


@dataclass(frozen=True)
class Encoding:
    """One job. `images_fps` is the rate of a directory of images, which has none of its own."""

    source: str
    target: str
    settings: Settings
    images_fps: float | None = None


@dataclass(frozen=True)
class Encoded:
    """What became of it: the columns of the new manifest line, and for the summary what the original was like."""

    status: str
    num_frames: int | None = None
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    reader: str | None = None
    source_fps: float = 0.0
    source_frames: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


class _Counted(Iterator[T]):
    def __init__(self, items: Iterator[T]) -> None:
        self.items, self.count = items, 0

    def __next__(self) -> T:
        item = next(self.items)
        self.count += 1
        return item


def partial_file(target: str) -> str:
    """Where the new file grows; whoever asked for it moves it to its place. Its name is short: the target's may be as
    long as a name can be.
    """
    directory, name = os.path.split(target)
    return os.path.join(directory, f".{hashlib.blake2b(os.fsencode(name), digest_size=12).hexdigest()}.partial")


def encode(job: Encoding, report: Report) -> Encoded:
    """Writes `partial_file(job.target)` and verifies it. A video that cannot be read is a result, not an error."""
    partial = partial_file(job.target)
    os.makedirs(os.path.dirname(partial), exist_ok=True)
    try:
        with open_video(job.source, "pyav") as video:
            if isinstance(video, PyavVideo):
                video.progress = heartbeat(report, "")
            source_fps = video.fps or job.images_fps or job.settings.fps or UNKNOWN_RATE
            thinned = job.settings.fps is not None and job.settings.fps < source_fps
            rate = job.settings.fps if thinned and job.settings.fps else source_fps
            timed = _Counted(_timed_frames(video, source_fps))
            frames = thin(timed, rate) if thinned else (frame for _, frame in timed)
            written = _write(partial, frames, rate, job.settings)
    except VideoError as error:
        return Encoded(" ".join(error.reason.split()))
    finding = examine(Job(partial), report)
    if (finding.status, finding.num_frames) != ("ok", written):
        return Encoded(f"was encoded wrongly: {written} frames in, {finding.num_frames} out ({finding.status})")
    return Encoded(
        "ok",
        finding.num_frames,
        finding.fps,
        finding.height,
        finding.width,
        finding.reader,
        source_fps,
        timed.count,
        _size(job.source),
        os.path.getsize(partial),
    )


def thin(frames: Iterable[tuple[float, T]], fps: float) -> Iterator[T]:
    """Of (time in seconds, frame) those on show `fps` times a second, from the first on; one twice across a gap."""
    taken, begin, now, shown = 0, 0.0, 0.0, None
    for now, frame in frames:
        if shown is None:
            begin = now
        while shown is not None and begin + taken / fps < now - ROUNDING:
            yield shown[0]
            taken += 1
        shown = (frame,)
    while shown is not None and begin + taken / fps <= now + ROUNDING:
        yield shown[0]
        taken += 1


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Both even, as H.264 wants them, and the aspect kept as well as that allows."""
    scale = min(1.0, short_side / min(height, width))
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


@dataclass(frozen=True)
class Clip:
    """What to time: 16 frames from the middle of a video of `num_frames`."""

    path: str
    num_frames: int
    stride: int
    reader: str | None = None


def clip_time(clip: Clip, report: Report) -> float:
    """ms to open the file and read the clip: the median of five, after one to warm up."""
    start = max(0, (clip.num_frames - 15 * clip.stride) // 2)
    numbers = [min(start + i * clip.stride, clip.num_frames - 1) for i in range(16)]
    times = []
    for _ in range(6):
        begin = time.perf_counter()
        read_frames(clip.path, numbers, clip.reader or "auto")
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times[1:])


def _timed_frames(video: Video, fps: float) -> Iterator[tuple[float, Any]]:
    """(seconds, `av.VideoFrame`), upright, up to where decoding fails, as `verify` counts them."""
    import av

    if not isinstance(video, PyavVideo):
        for number in range(video.num_frames):
            image = video.frames([number])[0].numpy()
            yield number / fps, av.VideoFrame.from_ndarray(image, format="rgb24")
        return
    number = -1
    try:
        for number, frame in enumerate(video.decoded()):
            seconds = number / fps if frame.time is None else frame.time
            if frame.rotation:
                frame = av.VideoFrame.from_ndarray(video.picture(frame), format="rgb24")
            yield seconds, frame
    except VideoError:
        if number < 0:
            raise


def _write(file: str, frames: Iterator[Any], fps: float, settings: Settings) -> int:
    """Returns how many. One thread: other videos keep the other cores busy, and the bytes are always the same."""
    import av

    first = next(frames, None)
    if first is None:
        raise VideoError(file, "not one frame can be decoded")
    rate = Fraction(fps).limit_denominator(100_000)
    height, width = scaled_size(first.height, first.width, settings.short_side)
    reformatter, count = av.video.reformatter.VideoReformatter(), 0
    options = {**QUALITY, "g": str(settings.gop), "threads": "1"}
    with av.open(file, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        # how YUV means RGB is passed on, but for the range: limited, as every player expects
        context, limited = stream.codec_context, av.video.reformatter.ColorRange.MPEG
        context.colorspace, context.color_range = first.colorspace, limited
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
        for count, frame in enumerate(itertools.chain([first], frames), 1):
            small = reformatter.reformat(
                frame, width, height, "yuv420p", interpolation="BICUBIC", dst_color_range=limited
            )
            small.pict_type = 0  # the old encoder's choice of key frames
            small.pts, small.time_base = count - 1, 1 / rate
            container.mux(stream.encode(small))
        container.mux(stream.encode())
    return count


def _size(path: str) -> int:
    """Bytes of a file, or of all images in a directory."""
    if os.path.isdir(path):
        return sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
    return os.path.getsize(path)
