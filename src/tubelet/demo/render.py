"""The demo data sets, rendered at first use to real H.264 files, which are read like any other video."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.progress import track

from tubelet.data.worker import cores
from tubelet.demo.camera import CameraMotions
from tubelet.demo.motions import Motions
from tubelet.demo.scenes import check_scene
from tubelet.demo.small import SmallObjects
from tubelet.demo.time import TimeChanges, check_sources
from tubelet.demo.video import FPS, FRAMES, SIZE, Video, write_video
from tubelet.videos.processes import Report, check_main_is_guarded, run_jobs

VERSION = 1  # of this renderer: a directory that another version has rendered is not used
SCENES: dict[str, type[Video]] = {
    "motions": Motions,
    "small": SmallObjects,
    "camera": CameraMotions,
    "time": TimeChanges,
}


def render(
    directory: str | Path,
    seed: int = 0,
    train_per_class: int = 80,
    val_per_class: int = 20,
    scene: str = "motions",
    sources: Sequence[str] | None = None,
) -> Path:
    """Render `train/*.mp4`, `val/*.mp4`, `train.csv`, `val.csv` and `labels.txt` into `directory` and return it.

    A directory that already holds exactly this data set is used as it is. Raises ValueError for any other directory
    that is not empty, and does not change it. Raises RuntimeError in a script without `if __name__ == "__main__":`.
    Several processes may call this at once: one renders, the others wait.

    scene: one of SCENES. sources: the videos that `time` cuts its clips from; None: those that packages bring
    (tubelet.demo.time.PACKAGED).
    """
    check_main_is_guarded()
    check_scene(scene)
    directory = Path(directory).resolve()
    if min(train_per_class, val_per_class) < 1:
        raise ValueError(f"a split needs videos, got train_per_class {train_per_class}, val_per_class {val_per_class}")
    per_class = {"train": train_per_class, "val": val_per_class}
    counts = {f"{split}_per_class": number for split, number in per_class.items()}
    stamp: dict[str, Any] = {"version": VERSION, "scene": scene, "seed": seed, **counts}
    if sources is not None:
        stamp["sources"] = list(sources)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(directory.parent / f".{directory.name}.lock"):
        if _is_complete(directory, stamp):
            return directory
        unfinished = directory.parent / f".{directory.name}.unfinished"
        videos = _videos(scene, seed, per_class, sources)
        # left by a process that was killed; nobody else writes there, because we hold the lock
        shutil.rmtree(unfinished, ignore_errors=True)
        # in another directory that is renamed at the end: a directory with this name is always complete
        _render_all(unfinished, videos, per_class)
        (unfinished / "demo.json").write_text(json.dumps(stamp))
        os.replace(unfinished, directory)
    return directory


def _is_complete(directory: Path, stamp: dict[str, Any]) -> bool:
    """True if `directory` holds this data set, False if it is empty or missing. Raises ValueError if it holds something
    else.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    found = directory / "demo.json"
    if not found.exists():
        raise ValueError(f"{directory} exists and is not a demo data set: choose another directory, or move it away")
    if {"scene": "motions", **json.loads(found.read_text())} != stamp:  # older stamps do not name the scene
        raise ValueError(
            f"{directory} holds the demo data {found.read_text()}, not {json.dumps(stamp)}: "
            "choose another directory, or delete this one"
        )
    return True


def _videos(scene: str, seed: int, per_class: dict[str, int], sources: Sequence[str] | None) -> list[Video]:
    kind = SCENES[scene]
    of_scene = {"sources": check_sources(sources)} if issubclass(kind, TimeChanges) else {}
    numbers = [(split, i) for split, count in per_class.items() for i in range(count)]
    return [kind(seed, split, action, i, **of_scene) for split, i in numbers for action in kind.labels]


def _render_all(directory: Path, videos: list[Video], splits: Iterable[str]) -> None:
    labels = videos[0].labels
    for split in splits:
        (directory / split).mkdir(parents=True)
        with open(directory / f"{split}.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "label", "num_frames", "fps", "height", "width"])
            for video in videos:
                if video.split == split:
                    rows.writerow([video.path, labels.index(video.action), FRAMES, FPS, SIZE, SIZE])
    (directory / "labels.txt").write_text("\n".join(labels) + "\n")
    # processes, not threads: numpy is called often and briefly, and each call would wait for the interpreter lock
    done = run_jobs(_render, [(directory, video) for video in videos], cores(), limit=60.0)
    for (_, video), killed in track(done, "rendering the demo videos", total=len(videos)):
        if killed is not None:
            raise RuntimeError(f"rendering {video.path}: {killed.reason}")


def _render(job: tuple[Path, Video], report: Report) -> None:
    directory, video = job
    write_video(directory / video.path, video.frames())
