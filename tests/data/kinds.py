"""One small file of each kind that the table of docs/videos.md lists, made with PyAV alone."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

FRAMES = 60
GOP = {"g": "12"}
B = {**GOP, "bf": "2"}


def pictures() -> Iterator[np.ndarray]:
    """A bright bar crosses a texture: every frame differs from every other."""
    texture = np.random.default_rng(0).integers(0, 80, (96, 128, 3), dtype=np.uint8)
    for number in range(FRAMES):
        image = texture.copy()
        image[:, 2 * number : 2 * number + 8] = 230
        yield image


def encode(file: Path, codec: str, options: dict[str, str], pixels: str = "yuv420p", **more: Any) -> Path:
    """`more`: `times` in ms for each frame, `format` and `muxing` options of the container."""
    times, container_options = more.get("times"), more.get("muxing", {})
    with av.open(str(file), "w", format=more.get("format"), options=container_options) as container:
        stream = container.add_stream(codec, rate=25, options={**options, "threads": "1"})
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 96, 128, pixels, 1_000_000
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(pictures()):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def copy(source: Path, file: Path, seconds: float = 0.0) -> Path:
    """The packets as they are, from the last key frame before `seconds` on: `ffmpeg -ss SECONDS -i … -c copy`."""
    with av.open(str(source)) as old, av.open(str(file), "w") as new:
        stream = old.streams.video[0]
        target = new.add_stream_from_template(stream)
        begin = round(seconds / stream.time_base)
        packets = [packet for packet in old.demux(stream) if packet.size]
        for packet in packets:
            packet.pts = packet.dts if source.suffix == ".avi" else packet.pts  # it has one time for a packet
        keys = [0] + [i for i, packet in enumerate(packets) if packet.is_keyframe and packet.pts <= begin]
        for packet in packets[keys[-1] :]:
            packet.pts, packet.dts, packet.stream = packet.pts - begin, packet.dts - begin, target
            new.mux(packet)
    return file


def rotated(file: Path) -> Path:
    content = bytearray(file.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # of a version 0 box
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    file.write_bytes(content)
    return file


def with_hidden_frames(source: Path, file: Path) -> Path:
    """VP8's alternate reference frames: decoded, never shown, at the time of the next."""
    with av.open(str(source)) as old, av.open(str(file), "w") as new:
        stream = old.streams.video[0]
        target = new.add_stream_from_template(stream)
        packets = [packet for packet in old.demux(stream) if packet.size]
        for number, packet in enumerate(packets):
            if number % 10 == 5:
                content = bytearray(bytes(packet))
                content[0] &= ~16  # show_frame
                hidden = av.Packet(bytes(content))
                hidden.pts = hidden.dts = packets[number + 1].pts
                hidden.time_base, packet = packet.time_base, hidden
            packet.stream = target
            new.mux(packet)
    return file


def with_cover(source: Path, file: Path) -> Path:
    """A picture of the cover comes before the film."""
    with av.open(str(source)) as old, av.open(str(file), "w") as new:
        cover = new.add_stream("mjpeg", rate=25)
        cover.height, cover.width, cover.pix_fmt = 200, 200, "yuvj420p"
        stream = old.streams.video[0]
        target = new.add_stream_from_template(stream)
        red = av.VideoFrame.from_ndarray(np.full((200, 200, 3), (200, 0, 0), np.uint8), format="rgb24")
        new.mux(cover.encode(red))
        new.mux(cover.encode())
        for packet in old.demux(stream):
            if packet.size:
                packet.stream = target
                new.mux(packet)
    return file


def h264(file: Path, **options: str) -> Path:
    return encode(file, "libx264", {**B, **options})


VARIABLE = [40 * n + 15 * (n % 3) + 400 * (n > 29) for n in range(FRAMES)]

KINDS: dict[str, Callable[[Path], Path]] = {
    "mp4, H.264": lambda d: encode(d / "a.mp4", "libx264", {**GOP, "bf": "0"}),
    "mp4, H.264 with B-frames": lambda d: h264(d / "a.mp4"),
    "mp4, H.264, one key frame": lambda d: h264(d / "a.mp4", g="250"),
    "mp4, H.264, in fragments (DASH)": lambda d: encode(
        d / "a.mp4", "libx264", B, muxing={"movflags": "frag_keyframe+empty_moov"}
    ),
    "mp4, H.264, turned by a phone": lambda d: rotated(h264(d / "a.mp4")),
    "mp4, H.264, variable frame rate": lambda d: encode(d / "a.mp4", "libx264", B, times=VARIABLE),
    "mp4, MPEG-4 part 2": lambda d: encode(d / "a.mp4", "mpeg4", GOP),
    "mkv, H.264 with B-frames": lambda d: h264(d / "a.mkv"),
    "webm, VP8": lambda d: encode(d / "a.webm", "libvpx", GOP),
    "webm, VP9": lambda d: encode(d / "a.webm", "libvpx-vp9", {**GOP, "cpu-used": "8"}),
    "avi, XviD": lambda d: encode(d / "a.avi", "mpeg4", {**GOP, "bf": "0"}),
    "avi, Motion JPEG": lambda d: encode(d / "a.avi", "mjpeg", {}, "yuvj420p"),
    "mp4, H.264, cut without re-encoding (edit list)": lambda d: copy(h264(d / "whole.mp4"), d / "a.mp4", 0.8),
    "mp4, H.264, open groups of pictures": lambda d: h264(d / "a.mp4", **{"bf": "3", "x264-params": "open-gop=1"}),
    "mp4, H.264, intra refresh": lambda d: h264(d / "a.mp4", **{"bf": "0", "x264-params": "intra-refresh=1"}),
    "mp4, H.264, 10 bits": lambda d: encode(d / "a.mp4", "libx264", B, "yuv420p10le"),
    "mp4, H.264, interlaced": lambda d: h264(d / "a.mp4", **{"flags": "+ilme+ildct", "x264-params": "tff=1"}),
    "mp4, MPEG-4 part 2 with B-frames": lambda d: encode(d / "a.mp4", "mpeg4", B),
    "mp4, copied from an avi with B-frames": lambda d: copy(encode(d / "a.avi", "mpeg4", B), d / "a.mp4"),
    "mkv, a cover picture before the video": lambda d: with_cover(h264(d / "film.mp4"), d / "a.mkv"),
    "webm, VP8 with hidden frames": lambda d: with_hidden_frames(
        encode(d / "plain.webm", "libvpx", {"g": "250"}), d / "a.webm"
    ),
    "avi, XviD with B-frames": lambda d: encode(d / "a.avi", "mpeg4", B),
    "avi, H.264 with B-frames": lambda d: h264(d / "a.avi"),
    "ts (MPEG transport stream)": lambda d: h264(d / "a.ts"),
    "m2ts (AVCHD)": lambda d: encode(d / "a.m2ts", "libx264", B),
    "mpg, vob (MPEG program stream)": lambda d: encode(d / "a.mpg", "mpeg2video", B),
    "wmv": lambda d: encode(d / "a.wmv", "wmv2", GOP),
    "flv": lambda d: h264(d / "a.flv"),
    "mxf": lambda d: encode(d / "a.mxf", "mpeg2video", B),
}
