"""A manifest with a few labelled videos per class, to learn from few labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tubelet.data.manifest import Manifest
from tubelet.data.randomness import generator
from tubelet.demo.render import render


def few_labels(manifest: str | Path, out: str | Path, per_class: int, seed: int = 0) -> None:
    """Write a manifest `out` with `per_class` videos of each class of `manifest`, drawn with `seed`. Raises ValueError
    if a class has fewer videos."""
    whole = Manifest.read(manifest)
    labels = torch.tensor([-1 if label is None else label for label in whole.table["label"].to_pylist()])
    chosen: list[int] = []
    for label in range(whole.num_classes):
        videos = (labels == label).nonzero().flatten()
        if per_class < 1 or len(videos) < per_class:
            raise ValueError(f"{manifest}: class {label} has {len(videos)} videos, cannot draw {per_class}")
        # drawn per class, so that more videos per class include those of fewer
        order = torch.randperm(len(videos), generator=generator(seed, "few labels", label))
        chosen += videos[order[:per_class]].tolist()
    Manifest(whole.root, whole.table.take(sorted(chosen))).write(out)


def demo(
    directory: str | Path,
    per_class: int,
    label_seed: int = 0,
    seed: int = 0,
    train_per_class: int = 80,
    val_per_class: int = 20,
    scene: str = "motions",
    sources: Sequence[str] | None = None,
) -> None:
    """Render the demo videos, and write `train_<per_class>_<label_seed>.csv` beside their `train.csv`."""
    directory = render(directory, seed, train_per_class, val_per_class, scene, sources)
    few_labels(directory / "train.csv", directory / f"train_{per_class}_{label_seed}.csv", per_class, label_seed)
