"""Broken videos, made from three small good ones: H.264 in mp4 (index in front), MPEG-4 in avi, VP9 in webm."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import av
import numpy as np

BASES = {"mp4": ("libx264", {"g": "12", "bf": "2"}), "avi": ("mpeg4", {"g": "12"}), "webm": ("libvpx-vp9", {"g": "12"})}
FRAMES = 40


def write_base(file: Path) -> None:
    """40 frames of 96 x 128 at 24 per second: a bright bar crosses the picture."""
    codec, options = BASES[file.suffix[1:]]
    faststart = {"movflags": "+faststart"} if file.suffix == ".mp4" else {}
    with av.open(str(file), "w", options=faststart) as container:
        stream = container.add_stream(codec, rate=24, options={**options, "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        stream.bit_rate = 400_000
        texture = np.random.default_rng(0).integers(0, 80, (96, 128, 3), dtype=np.uint8)
        for number in range(FRAMES):
            image = texture.copy()
            image[:, 3 * number : 3 * number + 8] = 230
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_corpus(directory: Path, flips: int = 23) -> list[Path]:
    """Writes the mutants and returns them: 3 * (21 + 2 * flips) + 9 files and other things."""
    directory.mkdir(parents=True)
    made = []

    def add(name: str, content: bytes) -> None:
        made.append(directory / name)
        made[-1].write_bytes(content)

    for kind in BASES:
        base = directory / f"base.{kind}"
        write_base(base)
        whole, draw = base.read_bytes(), np.random.default_rng(1)
        base.unlink()
        for tenth in range(1, 10):
            add(f"cut{tenth}.{kind}", whole[: len(whole) * tenth // 10])
        for tenth in range(10):
            start, length = len(whole) * tenth // 10, len(whole) // 20
            add(f"zeros{tenth}.{kind}", whole[:start] + bytes(length) + whole[start + length :])
        header = 1024
        for flip in range(flips):
            add(f"header{flip}.{kind}", _flip(whole, draw.integers(8 * min(header, len(whole)), size=4)))
            add(f"data{flip}.{kind}", _flip(whole, draw.integers(8 * header, 8 * len(whole), size=8)))
        for other in BASES.keys() - {kind}:
            add(f"is_{kind}.{other}", whole)
        if kind == "avi":
            add("claims_more.avi", _claim(whole, 1000))
            add("claims_millions.avi", _claim(whole, 2**31 - 1))
    add("text.mp4", b"not a video, but some lines of text\n" * 100)
    add("empty.mp4", b"")
    made.append(directory / "audio.mp4")
    _write_audio(made[-1])
    made.append(directory / "folder.mp4")
    made[-1].mkdir()
    made.append(directory / "dangling.mp4")
    made[-1].symlink_to("nowhere.mp4")
    made.append(directory / "pipe.mp4")
    os.mkfifo(made[-1])
    add("forbidden.mp4", b"whatever")  # to all but root
    made[-1].chmod(0)
    return made


def _flip(whole: bytes, bits: np.ndarray) -> bytes:
    changed = bytearray(whole)
    for bit in bits.tolist():
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _claim(avi: bytes, frames: int) -> bytes:
    """Another number of frames in both headers: dwTotalFrames of `avih`, dwLength of `strh`."""
    changed = bytearray(avi)
    struct.pack_into("<I", changed, avi.index(b"avih") + 8 + 16, frames)
    struct.pack_into("<I", changed, avi.index(b"strh") + 8 + 32, frames)
    return bytes(changed)


def _write_audio(file: Path) -> None:
    with av.open(str(file), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
