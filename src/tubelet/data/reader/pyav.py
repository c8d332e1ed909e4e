"""PyAV: decoding from the first frame on, the referee of all readers; and its seeking variant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.data.reader.video import Shrink, Video, VideoError, first_line


class PyavVideo(Video):
    """Decodes from the start, so that frame n is frame n whatever the container's index says. `progress` is called for
    every frame and every packet: a long file is no hanging decoder.
    """

    progress: Callable[[], object] | None = None
    threads = 1

    def __init__(self, path: str) -> None:
        import av

        self.path = path
        self._failures = (av.FFmpegError, OSError, ValueError)
        self._reformatter = av.video.reformatter.VideoReformatter()  # its tables are made once, not for every frame
        self._open()
        self.fps = float(self.stream.average_rate or self.stream.guessed_rate or 0.0)  # ogg has no average

    @cached_property
    def num_frames(self) -> int:
        """One packet holds one frame, but for those that an edit list hides, and VP8's hidden frames, which have the
        time of another. What the container says ignores both, and many say nothing.
        """
        times = [time for time, _, hidden in self._shown if not hidden]
        return len(times) if None in times else len(set(times))

    @cached_property
    def _shown(self) -> list[tuple[Any, bool, bool]]:
        """Of each packet: when it is shown (or None), whether it is a key frame, and whether an edit list hides it.
        Read once: to read them again is to open the file again.
        """
        return [(packet.pts, packet.is_keyframe, packet.is_discard) for packet in self.packets()]

    def decoded(self) -> Iterator[Any]:
        """Every frame that can be decoded, in the order of showing, as `av.VideoFrame`. Raises VideoError where
        decoding fails.
        """
        with self._named_errors():
            self._rewind()
            for frame in self.container.decode(self.stream):
                if self.progress is not None:
                    self.progress()
                yield frame

    def packets(self) -> Iterator[Any]:
        """Every packet that holds a frame, as `av.Packet`, in the order of decoding; nothing is decoded. Those that an
        edit list hides say `is_discard`. Raises VideoError.
        """
        with self._named_errors():
            self._rewind()
            for packet in self.container.demux(self.stream):
                if self.progress is not None:
                    self.progress()
                if packet.size:
                    yield packet

    def frames(self, numbers: Sequence[int]) -> Tensor:
        return self.shrunk(numbers, lambda frames: frames)

    def shrunk(self, numbers: Sequence[int], shrink: Shrink) -> Tensor:
        """In one go, for every call begins at the start of the file."""
        self._check(numbers, max(numbers, default=0) + 1)
        wanted, last, number = set(numbers), max(numbers), -1
        found: dict[int, Tensor] = {}
        sizes: set[tuple[int, ...]] = set()
        with self._named_errors():
            for number, frame in self._numbered_from(min(numbers)):
                if number in wanted:
                    picture = torch.from_numpy(self.picture(frame))  # [H,W,C]
                    sizes.add(tuple(picture.shape[:2]))
                    found[number] = shrink(picture[None])[0]
                if number >= last:
                    break
        if len(found) < len(wanted):
            self._check(numbers, number + 1)
            raise VideoError(self.path, f"frame {min(wanted - set(found))} cannot be decoded")
        if len(sizes) > 1:
            raise VideoError(self.path, f"its frames differ in size: {sorted(sizes)} (height, width)")
        return torch.stack([found[number] for number in numbers])  # [T,H,W,C]

    def picture(self, frame: Any) -> np.ndarray:
        """uint8 [H,W,C] of an `av.VideoFrame`, turned upright as players, decord and torchcodec do."""
        with self._named_errors():
            image = self._reformatter.reformat(frame, format="rgb24", **_one_thread()).to_ndarray()
        quarters = round(frame.rotation / 90) % 4  # anticlockwise
        return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image

    def use_threads(self, count: int) -> None:
        """Decode with so many threads, several frames at a time: for whole videos, of which few are read at once."""
        self.threads = count
        self._set_threads()

    def close(self) -> None:
        self.container.close()

    def _numbered_from(self, first: int) -> Iterator[tuple[int, Any]]:
        """(number, frame) from frame `first` or earlier on."""
        yield from enumerate(self.decoded())

    def _connect(self) -> Any:
        import av

        return av.open(self.path)

    def _open(self) -> None:
        with self._named_errors():
            self.container: Any = self._connect()
        # FFmpeg's choice of several: a film before its cover picture, the larger one before the smaller
        self.stream: Any = self.container.streams.best("video")
        if self.stream is None:
            self.container.close()
            raise VideoError(self.path, "has no video stream")
        if self.stream.codec_context is None:
            self.container.close()
            raise VideoError(self.path, "its codec is unknown")
        self._set_threads()
        self._fresh = True

    def _set_threads(self) -> None:
        self.stream.codec_context.thread_count = self.threads
        if self.threads > 1:
            self.stream.codec_context.thread_type = "AUTO"

    def _rewind(self) -> None:
        """By opening it again: some containers cannot seek, others do not find their first frame again."""
        if not self._fresh:
            self.container.close()
            self._open()
        self._fresh = False

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            if isinstance(error, VideoError):
                raise
            raise VideoError(self.path, first_line(error)) from error


class SeekingPyavVideo(PyavVideo):
    """Starts at the key frame before the first frame wanted: quick, but wrong where a key frame does not start afresh
    (intra refresh) or packets have wrong times (AVI): tubelet.data.reader.kind knows where it is right.
    """

    @cached_property
    def _times(self) -> tuple[list[int], list[int]]:
        """When each frame, and when each key frame is shown, in the stream's own units."""
        times = [time for time, _, hidden in self._shown if not hidden]
        if None in times or len(set(times)) < len(times):
            raise VideoError(self.path, "its packets do not say when they are shown: it cannot be searched")
        return sorted(times), sorted(time for time, key, _ in self._shown if key and time is not None)

    def _numbered_from(self, first: int) -> Iterator[tuple[int, Any]]:
        times, keys = self._times
        self._check([first], len(times))
        numbers = {time: number for number, time in enumerate(times)}
        # by the key frame's own time: some containers search by the time of decoding, and would find the next one
        start = max((time for time in keys if time <= times[first]), default=times[first])
        with self._named_errors():
            self._fresh = False
            self.container.seek(start, stream=self.stream)
            for frame in self.container.decode(self.stream):
                if frame.pts not in numbers:
                    raise VideoError(self.path, f"a frame is shown at {frame.pts}, where no packet says so")
                yield numbers[frame.pts], frame


@cache
def _one_thread() -> dict[str, int]:
    """Newer PyAV converts colours on every core unless told otherwise; older PyAV does not know the option."""
    import av

    try:
        av.video.reformatter.VideoReformatter().reformat(av.VideoFrame(16, 16, "yuv420p"), format="rgb24", threads=1)
    except TypeError:
        return {}
    return {"threads": 1}
