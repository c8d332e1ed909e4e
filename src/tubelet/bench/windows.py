"""What `tubelet features --window` costs beyond what it cannot avoid: decoding, and the encoder.

decode   decode every frame once, and make pictures of those that windows take, at the size of the file
windows  the same, resized and cut into windows
encode   the encoder alone, on as many windows
whole    everything, down to the finished files

On a GPU both can go on at once: the limit is the longer of decode and encode, in seconds of the clock. On the CPU they
share the cores: the limit is their sum, in seconds of one core, so that other work on the machine does not count. The
stages alternate; the first round is dropped, and the result is the median of the others.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import torch
from rich.console import Console
from rich.table import Column, Table

from tubelet.bench import WIDTH
from tubelet.config.compose import build_model
from tubelet.data.background import in_threads
from tubelet.data.manifest import Record
from tubelet.data.reader import open_video
from tubelet.data.reader.pyav import PyavVideo
from tubelet.data.transforms import Preprocess
from tubelet.data.windows import VideoWindows, Window
from tubelet.evaluate.dense import Windows, extract_windows, list_videos
from tubelet.evaluate.device import on_device
from tubelet.evaluate.window_features import WindowFeatures

BATCH = 8


@dataclass(frozen=True)
class Timing:
    """Seconds of each stage for all videos: of one core on the CPU, of the clock on a GPU."""

    windows_made: int
    decode: float
    windows: float
    encode: float
    whole: float
    limit: float

    @property
    def whole_to_limit(self) -> float:
        return self.whole / self.limit


def bench(
    manifest: Path, encoder: str, stride: int | None, frame_stride: int, device: str, workers: int, rounds: int
) -> Timing:
    """Time the stages on the videos of a manifest. Raises VideoError if one cannot be read."""
    model = on_device(build_model(f"encoder={encoder}"), device).eval()
    model.preprocess = Preprocess(stride=frame_stride)
    settings = Windows(stride, frame_stride)
    videos, grid = list_videos([manifest]), model.encoder.grid
    features = WindowFeatures(model.encoder, model.preprocess)
    shrink = model.preprocess.shrinker((grid.height, grid.width))

    def cut(record: Record) -> Iterator[Window]:
        sampling = model.preprocess.frames()
        yield from VideoWindows(record, sampling, shrink, grid.frames, settings.stride or grid.frames)

    def run(job: Callable[[Record], Iterator[Window]]) -> int:
        items = in_threads([partial(job, record) for record in videos.values()], workers, 2 * BATCH)
        return sum(isinstance(item, Window) for _, item in items)

    made = run(cut)
    clips = torch.randint(0, 255, (BATCH, grid.frames, grid.height, grid.width, 3), dtype=torch.uint8)

    def encode() -> None:
        for first in range(0, made, BATCH):
            features(clips[: made - first])

    def extract(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        extract_windows(model, videos, folder, settings, batch_size=BATCH, num_workers=workers, device=device)

    clock = process_time if torch.device(device).type == "cpu" else perf_counter
    with TemporaryDirectory() as folder:
        stages: list[Callable[[], object]] = [
            partial(run, partial(_decode, frame_stride)),
            partial(run, cut),
            encode,
            partial(extract, Path(folder) / "features"),
        ]
        times: list[list[float]] = []
        for _ in range(rounds + 1):
            times.append([_seconds(stage, clock) for stage in stages])
    decode, windows, alone, whole = (median(column) for column in zip(*times[1:], strict=True))
    limit = decode + alone if clock is process_time else max(decode, alone)
    return Timing(made, decode, windows, alone, whole, limit)


def print_timings(timings: dict[str, Timing], device: str) -> None:
    numbers = ("windows", "decode", "cut", "encode", "whole", "limit", "/ limit")
    table = Table("files", *(Column(name, no_wrap=True, justify="right") for name in numbers), box=None, pad_edge=False)
    for name, t in timings.items():
        stages = (t.decode, t.windows, t.encode, t.whole, t.limit)
        per_window = (f"{1000 * seconds / t.windows_made:.1f}" for seconds in stages)
        table.add_row(name, str(t.windows_made), *per_window, f"{t.whole_to_limit:.2f}")
    unit = "milliseconds of one core" if torch.device(device).type == "cpu" else "milliseconds of the clock"
    Console(width=WIDTH).print(f"{unit} per window", table)


def _decode(frame_stride: int, record: Record) -> Iterator[Window]:
    with open_video(record.path, "pyav") as video:
        if not isinstance(video, PyavVideo):
            raise ValueError(f"{record.path} is no video file")
        for number, frame in enumerate(video.decoded()):
            if number % frame_stride == 0:
                video.picture(frame)
    yield from ()


def _seconds(stage: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    stage()
    return clock() - start
