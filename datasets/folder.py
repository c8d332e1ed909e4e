"""Your own videos in folders: python datasets/folder.py RAW_DIR OUT_DIR [--val-share 0.1] [--seed 0]

    RAW_DIR/{train,val,test}/CLASS/video.*    splits as they are (val and test may be missing; training, valid,
                                              validation, dev, testing and capitals are understood too)
    RAW_DIR/CLASS/video.*                     a share of every class becomes val
    RAW_DIR/video.*                           no classes: enough for pretraining
A video is a file, or a folder of numbered images. Classes are numbered in the order of their names. A video may lie
deeper than its class's folder. Whatever is passed over is printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from tubelet.data.randomness import generator
from tubelet.videos.find import SYSTEM, find_videos
from tubelet.videos.prepare import Listed, run_script, write_data_set

NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def main(
    raw_dir: Path,
    out_dir: Path,
    val_share: Annotated[float, typer.Option(min=0.0, max=0.9, help="of every class, where there is no val/")] = 0.1,
    seed: Annotated[int, typer.Option(help="of the choice")] = 0,
) -> None:
    """Manifests of folders of videos."""
    if folders := find_splits(raw_dir):
        named = {split: [(class_of(file, root), file) for file in find_videos(root)] for split, root in folders.items()}
        print_empty_classes(folders, named)
    else:
        found = [(class_of(file, raw_dir), file) for file in find_videos(raw_dir)]
        print_empty_classes({"all": raw_dir}, {"all": found})
        named = divide(found, val_share, seed)
    labels = sorted({name for part in named.values() for name, _ in part if name})
    unnamed = [file for part in named.values() for name, file in part if not name]
    if labels and unnamed:
        raise ValueError(f"{unnamed[0]}: lies in no class's folder, though others do")
    splits = {
        split: [Listed(str(file), file, labels.index(name) if name else None) for name, file in part]
        for split, part in named.items()
    }
    write_data_set(raw_dir, out_dir, labels, splits, "CLASS/video.mp4 and other video files")


def find_splits(raw_dir: Path) -> dict[str, Path]:
    """Split -> folder; empty if there are none. Raises ValueError if two folders are the same split, or train is not
    among them.
    """
    folders: dict[str, Path] = {}
    inside = sorted(path for path in raw_dir.glob("*") if path.is_dir() and path.name not in SYSTEM)
    for path in inside:
        if split := NAMES.get(path.name.lower()):
            if split in folders:
                raise ValueError(f"{folders[split]} and {path}: both are {split}, leave one")
            folders[split] = path
    if folders and "train" not in folders:
        # a class may be called test: but then there are others
        if len(folders) < len(inside):
            return {}
        raise ValueError(f"{raw_dir}: holds {', '.join(path.name for path in inside)}, but no train folder")
    if folders and (others := [path.name for path in inside if path not in folders.values() and path.name[0] != "."]):
        print(f"passed over: {len(others)} folders beside {folders['train'].name} (such as {others[0]})")
    return dict(sorted(folders.items(), key=lambda item: ("train", "val", "test").index(item[0])))


def print_empty_classes(folders: dict[str, Path], named: dict[str, list[tuple[str, Path]]]) -> None:
    for split, root in folders.items():
        there = {name for name, _ in named[split]}
        inside = sorted(path.name for path in root.glob("*") if path.is_dir() and path.name[0] != ".")
        if there - {""} and (empty := [name for name in inside if name not in there | set(SYSTEM)]):
            print(f"no video in {len(empty)} folders of {root}, so no classes: {', '.join(empty[:10])}")


def class_of(file: Path, folder: Path) -> str:
    """The first folder below `folder`; empty if the file lies in `folder` itself."""
    parts = file.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def divide(videos: list[tuple[str, Path]], share: float, seed: int) -> dict[str, list[tuple[str, Path]]]:
    """A random share of every class, rounded, becomes val; a class with a single video stays in train."""
    parts: dict[str, list[tuple[str, Path]]] = {"train": [], "val": []}
    small = []
    for name in sorted({name for name, _ in videos}):
        members = [video for video in videos if video[0] == name]
        count = min(round(share * len(members)), len(members) - 1)
        if count == 0 and share > 0:
            small.append(name or str(members[0][1].parent))
        chosen = set(torch.randperm(len(members), generator=generator(seed, "val", name))[:count].tolist())
        for i, video in enumerate(members):
            parts["val" if i in chosen else "train"].append(video)
    if small:
        print(f"too few videos for a share of {share:g} in val, all are in train: {', '.join(small[:10])}")
    return {split: part for split, part in parts.items() if part or split == "train"}


if __name__ == "__main__":
    run_script(main)
