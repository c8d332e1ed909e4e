"""From a raw download to manifests: what the scripts of datasets/ share.

A script lists the videos of each official split, finds their files and writes, through `write_data_set`, one manifest a
split, `labels.txt` and `missing.csv`. A video that is not there is counted and listed, never silently dropped.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from tubelet.data.manifest import Manifest
from tubelet.videos.find import console

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Listed:
    """A video of an official list: its name there, its file if one was found, its class number if the list gives it."""

    name: str
    file: Path | None
    label: int | None = None


def run_script(main: Callable[..., None]) -> None:
    """`main`'s parameters are the command line; a ValueError ends it with one line and exit code 2."""
    try:
        typer.run(main)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def find_file(root: Path, *patterns: str) -> Path:
    """The first file below `root` that a pattern matches, at most two folders deep. Raises ValueError naming all."""
    if not root.is_dir():
        raise ValueError(f"{root}: no such directory")
    for pattern in patterns:
        for prefix in ("", "*/", "*/*/"):
            for file in sorted(root.glob(prefix + pattern)):
                if file.is_file():
                    return file
    raise ValueError(f"{root}: holds no {' or '.join(patterns)}, neither itself nor one or two folders deeper")


def official_labels(script: str, name: str) -> list[str]:
    """labels/NAME.txt beside a script, which gives its `__file__`."""
    return (Path(script).parent / "labels" / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def read_json(file: Path) -> Any:
    """Raises ValueError naming the file if it is not JSON as a whole, as after a broken download."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{file}: is not a whole JSON file, download it again: {error}") from error


def write_data_set(
    raw: Path, out: Path, labels: Sequence[str], splits: Mapping[str, Sequence[Listed]], example: str
) -> None:
    """Write OUT/{split}.csv with absolute paths, OUT/labels.txt (if there are labels) and OUT/missing.csv, and print
    the counts. Raises ValueError if `out` is `raw`, or if not one video of a split was found below it; `example` then
    says in words what was looked for.
    """
    if out.resolve() == raw.resolve():
        raise ValueError(f"{out}: manifests would lie among the lists of the download: name another OUT_DIR")
    for split, videos in splits.items():
        if not any(video.file for video in videos):
            raise ValueError(
                f"none of the {len(videos)} videos of {split} was found: looked for {example} anywhere below {raw}"
            )
    out.mkdir(parents=True, exist_ok=True)
    _put_aside(out, splits)
    if labels:
        (out / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    for split, videos in splits.items():
        there = [video for video in videos if video.file]
        columns = {"path": [str(video.file.absolute()) for video in there if video.file]}
        Manifest.from_columns(out, columns | {"label": [video.label for video in there]}).write(out / f"{split}.csv")
    with open(out / "missing.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["split", "video", "label"])
        for split, videos in splits.items():
            writer.writerows([split, v.name, "" if v.label is None else v.label] for v in videos if not v.file)
    _print_counts(out, splits)
    _print_doubles(splits)


def _put_aside(out: Path, splits: Mapping[str, Sequence[Listed]]) -> None:
    """A manifest of an earlier run that this one does not write would be taken for one of the same data."""
    for split in SPLITS:
        file = out / f"{split}.csv"
        if split not in splits and file.exists():
            os.replace(file, f"{file}.old")
            print(f"{file} is of an earlier run, and there is no {split} now: it is {file.name}.old from here on")


def _print_doubles(splits: Mapping[str, Sequence[Listed]]) -> None:
    """A file under two labels, or in train and in another split, makes figures meaningless."""
    folder_of = cache(os.path.realpath)
    seen: dict[str, tuple[str, int | None]] = {}
    problems: dict[str, list[Path]] = {}
    for split, video in ((name, video) for name, videos in splits.items() for video in videos):
        if video.file is None:
            continue
        real = os.path.join(folder_of(video.file.parent), video.file.name)
        other, label = seen.setdefault(
            os.path.realpath(real) if video.file.is_symlink() else real, (split, video.label)
        )
        if label != video.label:
            problems.setdefault("are listed under two labels", []).append(video.file)
        elif other != split and "train" in (other, split):
            problems.setdefault(f"are in {other} and in {split}", []).append(video.file)
    for problem, files in problems.items():
        print(f"warning: {len(files):,} files {problem}, such as {files[0]}")


def _print_counts(out: Path, splits: Mapping[str, Sequence[Listed]]) -> None:
    table = Table("split", "listed", "found", "missing", "classes", title=str(out), title_justify="left")
    for split, videos in splits.items():
        found = [video for video in videos if video.file]
        classes = len({video.label for video in found} - {None})
        table.add_row(split, *(f"{n:,}" for n in (len(videos), len(found), len(videos) - len(found), classes)))
    console.print(table)
    missing = sum(not video.file for videos in splits.values() for video in videos)
    if missing:
        console.print(f"{missing:,} missing videos are listed in {out / 'missing.csv'}")
