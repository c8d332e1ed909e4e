"""Kinetics-400, -600 or -700: python datasets/kinetics.py RAW_DIR OUT_DIR [--classes 400|600|700]

RAW_DIR holds the official lists, whose names end in train, val or validate, and test (train.csv, kinetics_400_val.csv,
...; columns label,youtube_id,time_start,time_end,...), and the videos in any of the usual layouts, which may be mixed:
    train/{youtube_id}_{time_start:06d}_{time_end:06d}.mp4           (CVDF, https://github.com/cvdfoundation)
    train/abseiling/{youtube_id}_{time_start:06d}_{time_end:06d}.mp4 (the official crawler; other suffixes, too)
    train/{youtube_id}.mp4                                           (plain ids, with or without class folders)
Of a video that is there twice, a copy in a folder named replacement* (CVDF's, of corrupted ones) is taken. test.csv is
written if the test videos are there; published figures are of the validation videos.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from tubelet.videos.find import find_videos, stem
from tubelet.videos.prepare import Listed, find_file, official_labels, run_script, write_data_set

SPLITS = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}


def main(
    raw_dir: Path,
    out_dir: Path,
    classes: Annotated[int, typer.Option(help="400, 600 or 700; 0: as many as the training list has")] = 0,
) -> None:
    """Manifests of Kinetics."""
    rows = {"train": read_list(raw_dir, "train"), "val": read_list(raw_dir, "val")}
    number = classes or len({row["label"] for row in rows["train"]})
    if number not in (400, 600, 700):
        raise ValueError(f"the training list has {number} classes: say --classes 400, 600 or 700")
    labels = official_labels(__file__, f"kinetics{number}")
    numbers = {label: i for i, label in enumerate(labels)}
    videos = index_videos(raw_dir)

    def listed(split: str) -> list[Listed]:
        found = []
        for row in rows[split]:
            label = row.get("label") or None
            if label is not None and label not in numbers:
                raise ValueError(f"{label!r}, in the {split} list, is not a class of Kinetics-{number}: see --classes")
            name = f"{row['youtube_id']}_{seconds(row, 'time_start'):06d}_{seconds(row, 'time_end'):06d}"
            file = videos.get(name) or videos.get(row["youtube_id"])
            found.append(Listed(name, file, None if label is None else numbers[label]))
        return found

    splits = {split: listed(split) for split in rows}
    try:
        rows["test"] = read_list(raw_dir, "test")
    except ValueError:
        pass
    else:
        test = listed("test")
        if any(video.file for video in test):
            splits["test"] = test
    name = splits["val"][0].name
    write_data_set(raw_dir, out_dir, labels, splits, f"files such as {name}.mp4 or {name[:11]}.mp4")


def read_list(raw_dir: Path, split: str) -> list[dict[str, str]]:
    file = find_file(raw_dir, *(f"{prefix}{name}.csv" for name in SPLITS[split] for prefix in ("", "*[_-]")))
    with open(file, encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    needed = {"youtube_id", "time_start", "time_end"} | ({"label"} if split != "test" else set())
    if not rows or not needed <= rows[0].keys():
        raise ValueError(f"{file}: expected the columns {', '.join(sorted(needed))} and at least one video")
    return rows


def seconds(row: dict[str, str], column: str) -> int:
    """Some lists write 12.0 for 12."""
    try:
        return int(float(row[column]))
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"video {row['youtube_id']}: {column} is no number of seconds: {row[column]!r}") from None


def index_videos(raw_dir: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in find_videos(raw_dir):
        if stem(file) not in found or file.parent.name.startswith("replacement"):
            found[stem(file)] = file
    return found


if __name__ == "__main__":
    run_script(main)
