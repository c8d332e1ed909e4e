"""Features of every window of many videos. Each video is decoded once, in a thread, while the encoder works on batches
that may hold windows of several videos. Every finished video is a file: an interrupted run skips those that exist.
"""

from __future__ import annotations

import math
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tubelet.data.background import in_threads
from tubelet.data.manifest import Manifest, Record
from tubelet.data.reader import VideoError
from tubelet.data.sampling import Sampling
from tubelet.data.shard import shard_of
from tubelet.data.windows import VideoWindows, Window, window_sampling
from tubelet.data.worker import cores
from tubelet.encoders.base import Encoder
from tubelet.evaluate.device import on_device
from tubelet.evaluate.feature_files import FORMATS, Rows, check_file, join_features, read_info, write_features
from tubelet.evaluate.feature_index import check_index, write_index
from tubelet.evaluate.features import stamp_of
from tubelet.evaluate.window_features import Pool, WindowFeatures
from tubelet.models.base import encoder_of

_LISTS = (".csv", ".txt", ".tsv", ".list")  # endings of lists of videos


@dataclass(frozen=True)
class Windows:
    """Which windows are taken, and what is kept of them.

    stride        sampled frames from one window to the next; None: the length of a window
    frame_stride  frames of the file from one sampled frame to the next; or
    fps           sampled frames per second; both None: as the model was trained
    layers, pool  of `WindowFeatures`
    dtype         of the features: float32 or float16
    """

    stride: int | None = None
    frame_stride: int | None = None
    fps: float | None = None
    layers: Sequence[int] = ()
    pool: Pool = "mean"
    dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"stride must be at least 1, got {self.stride}")
        if self.dtype not in ("float32", "float16"):
            raise ValueError(f"dtype must be float32 or float16, got '{self.dtype}'")


def extract_windows(
    model: Any,
    videos: Mapping[str, Record],
    out: str | Path,
    settings: Windows | None = None,
    *,
    kind: str = "npy",
    batch_size: int = 8,
    num_workers: int = 2,
    device: str | torch.device = "cpu",
) -> list[VideoError]:
    """Write the features of every window of the videos, and return the errors of those that cannot be read.

    model: anything with an encoder and its `preprocess`; a window has the frames of its clip.
    videos: by name, of `name_videos`.
    out: a directory, which gets a file NAME.`kind` for each video and an index `features.json`; or one file ending in
        .safetensors or .arrow for all videos, or in .npy for a single one.
    num_workers: threads that decode, each one video at a time.

    Every file holds `features` [n,...], `start` and `end` in seconds, and `valid`, the number of frames of each window
    that are not padding: tubelet.evaluate.feature_files. Raises ValueError, before anything is decoded, for settings
    that do not fit the model, or if `out` holds features of other settings.
    """
    out, settings = Path(out), settings or Windows()
    if batch_size < 1 or num_workers < 1:
        raise ValueError(f"batch size and number of workers must be at least 1, got {batch_size} and {num_workers}")
    if single := bool(out.suffix) and not out.is_dir():
        check_file(out)
        if out.suffix == ".npy" and len(videos) > 1:
            raise ValueError(f"{out} cannot hold {len(videos)} videos: give a directory, or .safetensors or .arrow")
    if kind not in FORMATS:
        raise ValueError(f"format must be {', '.join(FORMATS)}, got '{kind}'")
    work = Extraction(on_device(encoder_of(model), device).eval(), model.preprocess, settings, videos)
    folder = out.with_name(f".{out.name}.parts") if single else out
    left = work.unfinished(folder, "npy" if single else kind)
    failed = work.run(left, batch_size, num_workers)
    files = {name: path for name in videos if (path := work.file(name)).exists()}
    if single and files:
        join_features(out, files)
    if single:
        shutil.rmtree(folder)
    else:
        write_index(folder, kind, work.about)
    return failed


class Extraction:
    """What `extract_windows` is about: an encoder, its settings, and a folder of finished files."""

    def __init__(self, encoder: Encoder, preprocess: Any, settings: Windows, videos: Mapping[str, Record]) -> None:
        self.videos, self.grid = videos, encoder.grid
        self.sampling: Sampling = window_sampling(preprocess.frames(), settings.frame_stride, settings.fps)
        self.shrink = preprocess.shrinker((encoder.grid.height, encoder.grid.width))
        self.stride = settings.stride or encoder.grid.frames
        self.features = WindowFeatures(encoder, preprocess, settings.layers, settings.pool, settings.dtype == "float16")
        self.about: dict[str, Any] = {
            "window": encoder.grid.frames, "stride": self.stride, "fps": self.sampling.fps,
            "frame_stride": None if self.sampling.fps else self.sampling.stride, "layers": list(settings.layers),
            "pool": settings.pool, "dtype": settings.dtype, "model": stamp_of(encoder, preprocess),
        }  # fmt: skip

    def unfinished(self, folder: Path, kind: str) -> list[str]:
        """The names of the videos without a file. Raises ValueError if the folder is of other settings, or holds
        another video under one of these names.
        """
        self.folder, self.kind = folder, kind
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file: --out must be a directory, or end in .npy, .safetensors or .arrow")
        folder.mkdir(parents=True, exist_ok=True)
        check_index(folder, kind, self.about)
        return [name for name in self.videos if not self._is_finished(name)]

    def _is_finished(self, name: str) -> bool:
        file, record = self.file(name), self.videos[name]
        if not file.exists():
            return False
        about = read_info(file)
        another = about["video"] != record.path and os.path.exists(about["video"])  # if not: the videos were moved
        segment = list(record.segment)
        if another or about.get("segment", segment) != segment:
            part = "" if another else ", of another segment"
            raise ValueError(f"{file} holds features of {about['video']}{part}, not of {record.path}: change --out")
        return True

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.{self.kind}"

    def run(self, names: list[str], batch_size: int, num_workers: int) -> list[VideoError]:
        """Write the files of these videos. Returns the errors of those that cannot be read; they are printed, too."""
        threads = max(1, cores() // max(1, min(num_workers, len(names))))
        sources = [
            VideoWindows(self.videos[name], self.sampling, self.shrink, self.grid.frames, self.stride, threads)
            for name in names
        ]
        failed: list[VideoError] = []
        batch: list[tuple[_Output, Window]] = []
        begun: dict[int, _Output] = {}
        with _progress() as bar:
            task = bar.add_task("features", total=len(names), windows=0)
            for job, item in in_threads([partial(iter, source) for source in sources], num_workers, 2 * batch_size):
                if isinstance(item, Window):
                    if job not in begun:
                        begun[job] = _Output(self.folder)
                    begun[job].waiting += 1
                    batch.append((begun[job], item))
                elif item is None:
                    begun[job].ended = True
                else:
                    bar.print(f"error: {item}", markup=False, highlight=False, soft_wrap=True)
                    failed.append(item)
                    begun.pop(job, None)
                if len(batch) == batch_size:
                    self._encode(batch)
                self._write_complete(begun, names, sources)
                windows = bar.tasks[0].fields["windows"] + isinstance(item, Window)
                ended = not isinstance(item, Window)
                bar.update(task, advance=ended, windows=windows)
            self._encode(batch)
            self._write_complete(begun, names, sources)
        return failed

    def _encode(self, batch: list[tuple[_Output, Window]]) -> None:
        if batch:
            rows = self.features(torch.stack([window.clip for _, window in batch])).numpy()
            for (output, window), row in zip(batch, rows, strict=True):
                output.add(row, window)
            batch.clear()

    def _write_complete(self, begun: dict[int, _Output], names: list[str], sources: list[VideoWindows]) -> None:
        for job in [job for job, output in begun.items() if output.ended and not output.waiting]:
            source = sources[job]
            record, length = source.record, _length(source, self.sampling.fps)
            about = {"video": record.path, "segment": record.segment, **length, "settings": self.about}
            write_features(self.file(names[job]), begun.pop(job).columns(), about)


class _Output:
    """The features of a video so far."""

    def __init__(self, folder: Path) -> None:
        self._rows = Rows(folder)
        self._windows: list[tuple[float, float, int]] = []
        self.waiting, self.ended = 0, False

    def add(self, row: np.ndarray, window: Window) -> None:
        self._rows.add(row[None])
        self._windows.append((window.start, window.end, window.valid))
        self.waiting -= 1

    def columns(self) -> dict[str, list[np.ndarray]]:
        start, end, valid = zip(*self._windows, strict=True)
        return {
            "features": [self._rows.array()],
            "start": [np.array(start)],
            "end": [np.array(end)],
            "valid": [np.array(valid, np.int32)],
        }


def list_videos(paths: Sequence[Path], shard: str | None = None) -> dict[str, Record]:
    """The videos of lists (.csv, .txt, .tsv, .list) and video files or directories of images, by name; of `shard` i/n
    only its part, under the same names.
    """
    videos: list[Record] = []
    for path in paths:
        if path.suffix in _LISTS:
            manifest = Manifest.read(path)
            videos += [manifest.record(i) for i in range(len(manifest))]
        else:
            videos.append(Record(os.path.abspath(path.expanduser())))
    named = list(name_videos(videos).items())
    part = range(len(named)) if shard is None else shard_of(len(named), shard)
    return dict(named[part.start : part.stop])


def name_videos(videos: Sequence[Record]) -> dict[str, Record]:
    """A name for the file of each video: that of the video, below the folders in which they differ if names are not
    unique, with a number behind it if a video is listed several times.
    """
    stems = [Path(video.path).stem for video in videos]
    if len(set(stems)) < len(stems):
        root = os.path.commonpath([os.path.dirname(video.path) for video in videos])
        stems = [Path(os.path.relpath(video.path, root)).with_suffix("").as_posix() for video in videos]
    times, named = Counter(stems), {}
    seen: Counter[str] = Counter()
    for stem, video in zip(stems, videos, strict=True):
        # the index is features.json, and features.npy would have a features.json of its own
        named[f"{stem}-{seen[stem]}" if times[stem] > 1 or stem == "features" else stem] = video
        seen[stem] += 1
    if len(named) < len(videos):
        raise ValueError(f"{len(videos)} videos have only {len(named)} names: list each only once")
    return named


def _length(source: VideoWindows, fps: float | None) -> dict[str, Any]:
    """Frames per second, seconds and frames of a video, counted as its windows are: in frames of the file, or in
    sampled frames where these have a rate of their own.
    """
    known = not math.isnan(source.duration)
    frames = round(source.duration * fps) if fps and known else source.num_frames
    duration = round(source.duration, 6) if known else None
    return {"fps": fps or source.fps or None, "duration": duration, "frame": frames}


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("videos, {task.fields[windows]} windows"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
