"""The cost of loading in addition to decoding, in milliseconds of one core per clip.

decode     decode the frames of a clip at the size of the file: the lower limit
whole      all that training does: decode, multi-scale crop, resize, flip, mask, collate
repeated   the same with R clips per decoded video
device     what is left to the device with `data.crops=device`, measured on the CPU; the loader then only decodes

Everything runs in this process on one thread. The stages alternate over the same clips. The first round is a warm-up
and is dropped; the result is the median of the other rounds. We measure processor time, so other work on the machine
and waiting for disks do not count. Normalising runs on the device and is not included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, Literal

import av
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from tubelet.bench import WIDTH
from tubelet.clip import ClipGrid
from tubelet.data.dataset import Batch, TrainingVideos, collate
from tubelet.data.device_crops import FramesBatch, UncroppedVideos, collate_frames
from tubelet.data.manifest import Manifest
from tubelet.data.randomness import key
from tubelet.data.reader import available_readers
from tubelet.data.sampling import Sampling
from tubelet.data.worker import keep_memory
from tubelet.masking import tube
from tubelet.videos.encode import Settings
from tubelet.videos.transcode import transcode

GRID = ClipGrid(frames=16, height=224, width=224, tubelet=2, patch=16)
STRIDE = 4
FPS = 30.0  # of the rendered videos

Crops = Literal["loader", "device"]


@dataclass(frozen=True)
class Files:
    """A manifest, and the distance of a clip's frames in its files."""

    manifest: Path
    stride: int = STRIDE


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one core per clip, and ratios between stages (the median of the ratios of all rounds)."""

    files: str
    reader: str
    crops: Crops
    decode: float
    whole: float
    repeated: float
    device: float
    whole_to_decode: float
    repeated_to_whole: float


def bench(
    files: Mapping[str, Files], readers: list[str] | None = None, clips: int = 8, rounds: int = 7, repeats: int = 4
) -> list[Timing]:
    """Time every reader on all files, with crops in the loader and on the device: clips of 16 frames at 224 pixels,
    `clips` of them per round, each from another video where there are enough. Columns that `verify` has added are
    ignored, above all the reader.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one thread and kept memory, as in a worker of the loader
    keep_memory()
    places: list[Crops] = ["loader", "device"]
    try:
        cases = [(n, reader, crops) for n in files for reader in readers or available_readers() for crops in places]
        return [
            _measure(name, files[name], reader, crops, clips, rounds, repeats)
            for name, reader, crops in track(cases, description="measuring")
        ]
    finally:
        torch.set_num_threads(threads)


def _evenly_spread(manifest: Manifest, count: int) -> Manifest:
    """The paths of `count` videos, evenly spread over the manifest."""
    chosen = np.unique(np.linspace(0, len(manifest) - 1, count).astype(int)).tolist()
    return Manifest.from_columns(manifest.root, {"path": [manifest.record(i).path for i in chosen]})


def _measure(name: str, files: Files, reader: str, crops: Crops, clips: int, rounds: int, repeats: int) -> Timing:
    manifest = _evenly_spread(Manifest.read(files.manifest), clips)
    common: dict[str, Any] = {"seed": 0, "flip": True, "masking": partial(tube, ratio=0.9), "reader": reader}
    kind, join = (TrainingVideos, collate) if crops == "loader" else (UncroppedVideos, collate_frames)
    once, often = (kind(manifest, GRID, Sampling(stride=files.stride), repeats=r, **common) for r in (1, repeats))
    size = (GRID.height, GRID.width)
    batch: Batch | FramesBatch | None = None

    def decode(epoch: int, index: int) -> None:
        once.decode(manifest.record(index), epoch, index)

    def whole(epoch: int, index: int) -> None:
        join([once[epoch, index]])  # type: ignore[list-item]

    def repeated(epoch: int, index: int) -> None:
        nonlocal batch
        batch = join([often[epoch, index]])  # type: ignore[list-item]

    def on_device(epoch: int, index: int) -> None:
        if isinstance(batch, FramesBatch):
            batch.crop(size)

    stages: list[Callable[[int, int], None]] = [decode, whole, repeated, on_device]
    spent = torch.zeros(rounds + 1, len(stages), dtype=torch.float64)  # milliseconds
    for number in range(rounds + 1):
        for clip in range(clips):
            # another epoch each time, so that crops and masks are drawn again; all stages get the same clip
            slot = (number * clips + clip, clip % len(manifest))
            for stage, run in enumerate(stages):
                begun = process_time()
                run(*slot)
                spent[number, stage] += 1000 * (process_time() - begun)
    per_clip = spent[1:].T / clips  # [stage, round]
    per_clip[2:] /= repeats
    decoding, piped, repeating, _ = per_clip
    columns = (*per_clip, piped / decoding, repeating / piped)
    return Timing(name, reader, crops, *(median(column.tolist()) for column in columns))


def print_timings(timings: list[Timing], repeats: int) -> None:
    numbers = ("decode", "whole", "/ decode", f"R={repeats}", "/ whole", "clips/s", f"R={repeats}", "device")
    table = Table(
        *(Column(name, no_wrap=True) for name in ("files", "reader", "crops")),
        *(Column(name, no_wrap=True, justify="right") for name in numbers),
        box=None, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for t in timings:
        table.add_row(
            t.files, t.reader, t.crops, f"{t.decode:.1f}", f"{t.whole:.1f}", f"{t.whole_to_decode:.2f}",
            f"{t.repeated:.1f}", f"{t.repeated_to_whole:.2f}", f"{1000 / t.whole:.0f}", f"{1000 / t.repeated:.0f}",
            f"{t.device:.1f}" if t.crops == "device" else "",
        )  # fmt: skip
    Console(width=WIDTH).print("clips of 16 frames at 224 pixels; milliseconds of one core per clip", table)


def render(directory: Path, videos: int = 2, frames: int = 240) -> dict[str, Files]:
    """Render three sets of the same videos, H.264: as a camera or a web site encodes them, at 30 frames per second; and
    re-encoded for training by `tubelet transcode`, with all frames, and only with those that clips of stride 4 take.
    """
    original = directory / "original"
    original.mkdir(parents=True)
    paths = [original / f"{i}.mp4" for i in range(videos)]
    for i, path in enumerate(track(paths, description="rendering")):
        _render(path, i, frames)
    Manifest.from_columns(original, {"path": [path.name for path in paths]}).write(original / "videos.csv")
    transcode(original / "videos.csv", directory / "256", Settings(short_side=256, gop=16))
    transcode(original / "videos.csv", directory / "thinned", Settings(short_side=256, gop=8, fps=FPS / STRIDE))
    return {
        "480 px, GOP 250": Files(original / "videos.csv"),
        "256 px, GOP 16": Files(directory / "256" / "videos.csv"),
        f"256 px, GOP 8, {FPS / STRIDE:g} fps": Files(directory / "thinned" / "videos.csv", stride=1),
    }


def _render(path: Path, number: int, frames: int, height: int = 480, width: int = 640) -> None:
    """Render a camera that pans over a textured plane, a moving disc of another texture, and a little noise."""
    random = np.random.default_rng(key("bench", number))
    plane, other = (_texture(random, height * 2, width * 2) for _ in range(2))
    y, x = np.mgrid[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=int(FPS), options={"crf": "21", "preset": "veryfast", "g": "250"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(frames):
            t = n / 240
            top, left = int(height * (0.5 + 0.4 * np.sin(5 * t))), int(width * (0.5 + 0.4 * np.sin(3 * t)))
            image = plane[top : top + height, left : left + width].copy()
            centre_y, centre_x = height * (0.5 + 0.3 * np.cos(7 * t)), width * (0.5 + 0.3 * np.sin(9 * t))
            disc = (y - centre_y) ** 2 + (x - centre_x) ** 2 < (height / 5) ** 2
            image[disc] = other[:height, :width][disc]
            noisy = image + random.integers(-3, 4, image.shape, dtype=np.int16)
            frame = av.VideoFrame.from_ndarray(noisy.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _texture(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """int16 [H,W,3]: random colours at several scales."""
    total = torch.zeros(1, 3, height, width)
    for cells, weight in ((4, 90.0), (16, 60.0), (64, 40.0), (256, 20.0)):
        colours = torch.from_numpy(random.standard_normal((1, 3, cells, cells), dtype=np.float32))
        total += weight * torch.nn.functional.interpolate(colours, (height, width), mode="bicubic") / 2
    return (total[0] + 128).clamp(0, 255).permute(1, 2, 0).numpy().astype(np.int16)
