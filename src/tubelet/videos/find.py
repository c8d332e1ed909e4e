"""The videos below a folder: files, by their extension, and folders of numbered images. What is passed over is said."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from tubelet.data.reader.images import EXTENSIONS, numbered

SUFFIXES = (
    *(".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts", ".ogv"),
    *(".mts", ".m2ts", ".m2t", ".vob", ".mxf", ".f4v", ".gif", ".asf", ".divx", ".xvid", ".3g2", ".qt", ".ogm", ".ogg"),
    *(".mpe", ".m1v", ".m2v", ".mpv", ".m4p", ".mod", ".tod", ".dv", ".rm", ".rmvb", ".nut", ".y4m", ".mjpg", ".mjpeg"),
    *(".h264", ".264", ".h265", ".265", ".hevc", ".av1", ".ivf", ".wtv", ".amv"),
)
"""Of video files, in order of preference where a video is there twice."""

SYSTEM = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
"""Folders that archives and operating systems leave behind."""

console = Console()


@dataclass
class PassedOver:
    """What is no video, and why: reason -> how many, and the first of them."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    extensions: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str, path: str) -> None:
        self.counts[reason] += 1
        self.first.setdefault(reason, path)

    def add_file(self, path: str) -> None:
        self.extensions[os.path.splitext(path)[1].lower() or "no extension"] += 1
        self.add("with another extension than those of videos", path)

    def print(self) -> None:
        for reason, count in self.counts.items():
            print(f"passed over: {count:,} {reason} ({'such as ' if count > 1 else ''}{self.first[reason]})")
        if self.extensions:
            print(
                "  the extensions:", ", ".join(f"{name} {count:,}" for name, count in self.extensions.most_common(12))
            )


def find_videos(root: Path) -> Iterator[Path]:
    """Every video file and every folder of numbered images below `root`, in order of the names; each real folder is
    entered once, however many links lead to it. Raises ValueError if `root` is no directory.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such directory")
    passed_over = PassedOver()
    with console.status(f"looking for videos in {root}"):
        entered = {os.path.realpath(root)}
        for folder, folders, files in os.walk(root, followlinks=True):
            folders[:] = _to_enter(folder, sorted(folders), entered, passed_over)
            yield from _videos_of(Path(folder), sorted(files), passed_over)
    passed_over.print()


def _to_enter(folder: str, names: list[str], entered: set[str], passed_over: PassedOver) -> list[str]:
    chosen = []
    for path in sorted((os.path.join(folder, name) for name in names), key=os.path.islink):  # links come last
        name = os.path.basename(path)
        if name in SYSTEM or name.startswith("."):
            passed_over.add("hidden folders and those of archives or systems", path)
        elif (real := os.path.realpath(path)) in entered:
            passed_over.add("folders that are listed already, through a link", path)
        else:
            entered.add(real)
            chosen.append(name)
    return sorted(chosen)


def _videos_of(folder: Path, names: list[str], passed_over: PassedOver) -> Iterator[Path]:
    """The videos of one folder; the folder itself if it has none, but a series of images."""
    shown = []
    for name in names:
        if name.startswith("."):
            passed_over.add("hidden files", str(folder / name))
        else:
            shown.append(name)
    if any(is_video(name) for name in shown):
        yield from (folder / name for name in shown if is_video(name))
        shown = [name for name in shown if not is_video(name)]
    elif sum(name.lower().endswith(EXTENSIONS) for name in shown) > 1:
        try:
            numbered(shown)
        except ValueError as error:
            passed_over.add(f"folders of images that are not one video: {error}", str(folder))
        else:
            yield folder
        shown = [name for name in shown if not name.lower().endswith(EXTENSIONS)]
    for name in shown:
        passed_over.add_file(str(folder / name))


def is_video(file: str | Path) -> bool:
    return os.path.splitext(file)[1].lower() in SUFFIXES


def stem(video: Path) -> str:
    """Its name without extensions: downloaders make .mp4.webm. A folder of images has none."""
    name = video.name
    while is_video(name):
        name = os.path.splitext(name)[0]
    return name


def by_stem(root: Path) -> dict[str, Path]:
    """`stem` -> video, for every one below `root`. Of several, the preferred extension is taken, images last."""
    found: dict[str, Path] = {}
    for file in find_videos(root):
        other = found.get(stem(file))
        if other is None or _rank(file) < _rank(other):
            found[stem(file)] = file
    return found


def _rank(file: Path) -> int:
    return SUFFIXES.index(file.suffix.lower()) if is_video(file) else len(SUFFIXES)
