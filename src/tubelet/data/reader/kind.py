"""Which readers are right on a file, by its packets. At most one picture is decoded: some milliseconds per file.

A seeking reader is wrong where its way of counting does not fit the container: docs/videos.md has the table, and
tests/data/test_kinds.py measures it. Only what is listed here as right is used without `tubelet verify`; decoding from
the start (`pyav`) is right on everything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from tubelet.data.reader.pyav import PyavVideo

_SEEKABLE = ("mov", "matroska")  # FFmpeg's names of mp4 and mov, mkv and webm: each packet says when it is shown
_PLAIN_CODECS = {
    "h264",
    "hevc",
    "vp8",
    "vp9",
    "mpeg4",
    "mjpeg",
    "msmpeg4v2",
    "msmpeg4v3",
    "huffyuv",
    "ffv1",
    "rawvideo",
}
_AVI_SKIPS = 3  # frames that recorders count in an avi's header and leave out at its beginning
_PROGRESSIVE = 1  # of AVFieldOrder; 0: not known
_SLICE, _IDR = 1, 5  # units of H.264: an ordinary slice, and one that starts afresh


@dataclass(frozen=True)
class Kind:
    """`readers` are right on the file, the quickest first and `pyav` last. `times` holds when each frame is shown, in
    seconds after the first (float64 [frames]); None: at even distances, or unknown. `promised` is how many frames the
    container says are shown.
    """

    readers: tuple[str, ...]
    times: np.ndarray | None
    promised: int


def kind_of(path: str) -> Kind:
    """Looked up once for each state of a file in a process. Raises VideoError if the file cannot be opened."""
    status = os.stat(path)
    return _look(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16384)
def _look(path: str, size: int, changed: int) -> Kind:
    with PyavVideo(path) as video:
        assert isinstance(video, PyavVideo)
        return look_at(video)


def look_at(video: PyavVideo) -> Kind:
    """`kind_of` of an opened file."""
    packets = _Packets(video)
    promised = max(len(packets.times), video.stream.frames - packets.hidden)
    return Kind(_right_readers(video, packets), packets.uneven_times(video), promised)


class _Packets:
    """What the packets of a video stream say, in the order of decoding."""

    def __init__(self, video: PyavVideo) -> None:
        self.count, self.hidden, self.corrupt = 0, 0, False
        self.open_groups = False  # a frame shown before a key frame needs what comes before that in the file
        self.partial_keys = False  # a key frame that is not a picture of its own: intra refresh, open H.264 groups
        self.first_is_key = False
        self.times: list[int | None] = []
        length = _nal_length(video.stream)
        key_time: int | None = None
        for packet in video.packets():
            self.count += 1
            self.hidden += packet.is_discard
            self.corrupt |= packet.is_corrupt
            if not packet.is_discard:
                self.times.append(packet.pts)
            if packet.is_keyframe:
                key_time = packet.pts
                self.first_is_key |= self.count == 1
                self.partial_keys |= length is not None and not _has_idr(bytes(packet), length)
            elif key_time is not None and packet.pts is not None:
                self.open_groups |= packet.pts < key_time

    @property
    def are_timed(self) -> bool:
        """Every frame has a time of its own."""
        return None not in self.times and len(set(self.times)) == len(self.times)

    @property
    def are_in_order(self) -> bool:
        """They are shown in the order in which they are decoded."""
        return self.times == sorted(time for time in self.times if time is not None)

    def uneven_times(self, video: PyavVideo) -> np.ndarray | None:
        """Of a variable frame rate: some frame is shown half a frame too early or too late for an even one."""
        if not self.are_timed or not video.fps or len(self.times) < 2:
            return None
        shown = np.sort(np.array(self.times)) * float(video.stream.time_base)
        shown -= shown[0]
        worst = np.abs(shown - np.arange(len(shown)) / video.fps).max()
        return shown if worst > 0.5 / video.fps else None


def _right_readers(video: PyavVideo, packets: _Packets) -> tuple[str, ...]:
    stream, context = video.stream, video.stream.codec_context
    family = video.container.format.name.split(",")[0]
    counted = packets.count + (_AVI_SKIPS if family == "avi" else 0)
    whole = packets.first_is_key and not packets.corrupt and counted >= stream.frames
    opaque = context.name == "h264" and family in _SEEKABLE and _nal_length(stream) is None
    if not whole or not packets.are_timed or packets.partial_keys or opaque or _is_interlaced(video):
        return ("pyav",)
    # B-frames, yet shown in the order of decoding: AVI and what is copied from it give their packets wrong times
    delayed = bool(context.has_b_frames)
    plain = context.name in _PLAIN_CODECS and _has_8_bits(context) and len(video.container.streams.video) == 1
    if family == "avi":
        in_step = not delayed and not packets.open_groups and context.name != "h264"
        return ("decord", "torchcodec", "pyav") if in_step and plain else ("pyav",)
    if family not in _SEEKABLE or (delayed and packets.are_in_order and _may_reorder(video)):
        return ("pyav",)
    if packets.hidden or packets.open_groups or not plain:
        return ("pyav_seek", "pyav")
    return ("pyav_seek", "decord", "torchcodec", "pyav")


def _may_reorder(video: PyavVideo) -> bool:
    """Whether there are B-frames. Only H.264 is asked: it often could have some, and has none."""
    length = _nal_length(video.stream)
    return length is None or any(_has_b_slice(bytes(packet), length) for packet in video.packets())


def _has_8_bits(context: Any) -> bool:
    """decord makes other pixels of more."""
    import av

    return bool(context.pix_fmt) and max(part.bits for part in av.VideoFormat(context.pix_fmt).components) <= 8


def _is_interlaced(video: PyavVideo) -> bool:
    """decord mixes the colours of the two fields, and a packet may hold one field. Where neither the container nor
    PyAV before 15 says, the first picture does: the only one that is decoded.
    """
    if order := getattr(video.stream.codec_context, "field_order", 0):
        return order != _PROGRESSIVE
    frame = next(video.decoded(), None)
    return frame is None or bool(frame.interlaced_frame)


def _nal_length(stream: Any) -> int | None:
    """Bytes of the length in front of each H.264 unit, as mp4 and mkv have it; None for anything else."""
    context = stream.codec_context
    extra = context.extradata
    return (extra[4] & 3) + 1 if context.name == "h264" and extra and len(extra) > 4 and extra[0] == 1 else None


def _units(packet: bytes, length: int) -> Iterator[bytes]:
    """The first bytes of each H.264 unit; the first one's low five bits are its type."""
    at = 0
    while at + length < len(packet):
        yield packet[at + length : at + length + 9]
        at += length + int.from_bytes(packet[at : at + length], "big")


def _has_idr(packet: bytes, length: int) -> bool:
    return any(unit[0] & 31 == _IDR for unit in _units(packet, length))


def _has_b_slice(packet: bytes, length: int) -> bool:
    """A slice's header begins with two Exp-Golomb numbers: its place, and its type, which is 1 or 6 for B."""
    for unit in _units(packet, length):
        if unit[0] & 31 == _SLICE:
            bits = "".join(f"{byte:08b}" for byte in unit[1:]) + "1"
            for _ in range(2):
                zeros = bits.index("1")
                number, bits = int(bits[zeros : 2 * zeros + 1] or "1", 2) - 1, bits[2 * zeros + 1 :] + "1"
            if number % 5 == 1:
                return True
    return False
