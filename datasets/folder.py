"""Your own videos in folders: python datasets/folder.py RAW_DIR OUT_DIR [--val-share 0.1] [--seed 0]

    RAW_DIR/{train,val,test}/CLASS/video.*    splits as they are (val and test may be missing)
    RAW_DIR/CLASS/video.*                     a share of every class becomes val
    RAW_DIR/video.*                           no classes: enough for pretraining
Classes are numbered in the order of their names. A video may lie deeper than its class's folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from tubelet.data.randomness import generator
from tubelet.videos.prepare import Listed, find_videos, run_script, write_data_set


def main(
    raw_dir: Path,
    out_dir: Path,
    val_share: Annotated[float, typer.Option(min=0.0, max=0.9, help="of every class, where there is no val/")] = 0.1,
    seed: Annotated[int, typer.Option(help="of the choice")] = 0,
) -> None:
    """Manifests of folders of videos."""
    if (raw_dir / "train").is_dir():
        folders = {split: raw_dir / split for split in ("train", "val", "test") if (raw_dir / split).is_dir()}
        videos = {split: list(find_videos(folder)) for split, folder in folders.items()}
        named = {split: [(class_of(file, folders[split]), file) for file in videos[split]] for split in videos}
    else:
        named = divide([(class_of(file, raw_dir), file) for file in find_videos(raw_dir)], val_share, seed)
    labels = sorted({name for part in named.values() for name, _ in part if name})
    unnamed = [file for part in named.values() for name, file in part if not name]
    if labels and unnamed:
        raise ValueError(f"{unnamed[0]}: lies in no class's folder, though others do")
    splits = {
        split: [Listed(str(file), file, labels.index(name) if name else None) for name, file in part]
        for split, part in named.items()
    }
    write_data_set(raw_dir, out_dir, labels, splits, "CLASS/video.mp4 and other video files")


def class_of(file: Path, folder: Path) -> str:
    """The first folder below `folder`; empty if the file lies in `folder` itself."""
    parts = file.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def divide(videos: list[tuple[str, Path]], share: float, seed: int) -> dict[str, list[tuple[str, Path]]]:
    """A random share of every class, rounded, becomes val; a class with a single video stays in train."""
    parts: dict[str, list[tuple[str, Path]]] = {"train": [], "val": []}
    for name in sorted({name for name, _ in videos}):
        members = [video for video in videos if video[0] == name]
        count = min(round(share * len(members)), len(members) - 1)
        chosen = set(torch.randperm(len(members), generator=generator(seed, "val", name))[:count].tolist())
        for i, video in enumerate(members):
            parts["val" if i in chosen else "train"].append(video)
    return {split: part for split, part in parts.items() if part or split == "train"}


if __name__ == "__main__":
    run_script(main)
