"""HMDB51, an official split: python datasets/hmdb51.py RAW_DIR OUT_DIR [--split 1|2|3]

RAW_DIR holds the official download (HMDB: a large human motion database), unpacked:
    hmdb51_org/brush_hair/*.avi ... (or a folder of frames each)             (hmdb51_org.rar and the .rar of each class)
    testTrainMulti_7030_splits/brush_hair_test_split1.txt ...                (test_train_splits.rar)
A line of a split file is `NAME.avi 1` (training), `2` (test) or `0` (not in this split). HMDB51 has no validation
split: val.csv and test.csv both list the official test videos, as VideoMAE does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tubelet.videos.find import find_videos, stem
from tubelet.videos.prepare import Listed, find_file, official_labels, run_script, write_data_set


def main(
    raw_dir: Path, out_dir: Path, split: Annotated[int, typer.Option(min=1, max=3, help="official split")] = 1
) -> None:
    """Manifests of HMDB51."""
    labels = official_labels(__file__, "hmdb51")
    # a few names occur in two classes; of two copies the first is taken, hmdb51_org before the stabilised hmdb51_sta
    videos: dict[tuple[str, str], Path] = {}
    for file in find_videos(raw_dir):
        videos.setdefault((file.parent.name, stem(file)), file)
    train, test = [], []
    for label, name in enumerate(labels):
        file = find_file(raw_dir, f"{name}_test_split{split}.txt")
        for line in filter(str.strip, file.read_text().splitlines()):
            video, _, use = line.strip().rpartition(" ")
            if use not in ("0", "1", "2"):
                raise ValueError(f"{file}: expected `NAME.avi 0|1|2`, got {line!r}")
            listed = Listed(f"{name}/{video.strip()}", videos.get((name, Path(video.strip()).stem)), label)
            if use != "0":
                (train if use == "1" else test).append(listed)
    splits = {"train": train, "val": test, "test": test}
    write_data_set(raw_dir, out_dir, labels, splits, f"files such as {test[0].name}")


if __name__ == "__main__":
    run_script(main)
