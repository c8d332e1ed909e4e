"""What fits a small data set, chosen by its number of videos and the size of its frames; in a config
`${small:KEY,MANIFEST,finetune,SIZE}` and `${small:KEY,MANIFEST,pretrain}`. Any value given on the command line goes
before the chosen one.

Pretraining: found on the scenes of the demo at 32 pixels (docs/learning.md); more than 2000 videos were not tried.

Fine-tuning: our choices, between VideoMAE's recipes for UCF101 (9.5 k videos) and HMDB51 (3.6 k) (https://arxiv.org/abs/2203.12602,
section 7) and what few-shot tuning needs. Fewer videos: more epochs, so that there are some thousand steps at all; more
drop path and a steeper layer decay, so that what was pretrained stays; smaller batches. Up to 200 videos get a few
hundred steps, in which mixtures and a dropped-out head learn less (docs/learning.md). Small frames are not cropped: on
the demo's scenes that was as good or better.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal

from rich.table import Table

from tubelet.data.manifest import Manifest

Task = Literal["finetune", "pretrain"]
_SIDES = {"left", "leftward", "leftwards", "right", "rightward", "rightwards"}
_SIDES |= {"clockwise", "anticlockwise", "counterclockwise", "cw", "ccw"}
_STEPS = 3000  # at least, as far as 200 epochs allow
_WHOLE = 64  # frames of up to so many pixels are not cropped
_KEYS = ("batch_size", "base_lr", "layer_decay", "drop_path", "head_dropout", "mixup")
# up to so many videos -> values of _KEYS; epochs are computed
_TIERS: list[tuple[float, tuple[Any, ...]]] = [
    (200, (16, 2e-3, 0.65, 0.2, 0.0, 0.0)),
    (2000, (32, 1e-3, 0.7, 0.2, 0.5, 0.8)),
    (20000, (128, 5e-4, 0.7, 0.2, 0.5, 0.8)),
    (float("inf"), (384, 5e-4, 0.75, 0.1, 0.0, 0.8)),
]
_WHY: dict[Task, dict[str, str]] = {
    "finetune": {
        "batch_size": "small enough for many steps an epoch",
        "base_lr": "at batch 256: the step size of a small batch stays useful",
        "layer_decay": "the fewer videos, the less the first layers may move",
        "drop_path": "regularisation, as for UCF101",
        "head_dropout": "regularisation, as for UCF101; not in the few steps that up to 200 videos get",
        "max_epochs": f"about {_STEPS} steps, between 30 and 200 epochs",
        "mixup": "as VideoMAE's recipes; not in the few steps that up to 200 videos get",
        "flip": "mirrored videos are new ones, unless the names of classes tell left from right",
        "crop_scale": f"share of a frame's area that a crop takes: all of small frames (up to {_WHOLE} pixels)",
        "rand_augment": "as VideoMAE's recipes; not for small frames",
        "erase": "as VideoMAE's recipes; not for small frames",
    },
    "pretrain": {
        "batch_size": "with two clips of each video: few videos need many steps, not large ones",
        "base_lr": "at batch 256: 5e-4 for this batch. At 2e-3 the features of fine textures were lost",
        "max_epochs": "about 4000 steps, or 40000 for more than 2000 videos",
        "warmup_epochs": "a twentieth",
    },
}


@lru_cache(maxsize=8)
def settings(videos: int, task: Task = "finetune", size: int | None = None) -> dict[str, Any]:
    """size: of the frames in pixels; None: not known. Raises ValueError if there is not even a pair of videos."""
    if videos < 2:
        raise ValueError(f"training needs at least 2 videos, got {videos}")
    return _pretraining(videos) if task == "pretrain" else {**_fine_tuning(videos), **_augmentation(size)}


def _pretraining(videos: int) -> dict[str, Any]:
    batch, steps = (min(4, videos), 4000) if videos <= 2000 else (32, 40000)
    epochs = min(1600, max(20, round(steps / (videos // batch))))
    rate = 5e-4 * 256 / batch
    return {"batch_size": batch, "base_lr": rate, "max_epochs": epochs, "warmup_epochs": max(1, epochs // 20)}


def _fine_tuning(videos: int) -> dict[str, Any]:
    chosen = dict(zip(_KEYS, next(values for most, values in _TIERS if videos <= most), strict=True))
    while chosen["batch_size"] > videos:
        chosen["batch_size"] //= 2
    chosen["max_epochs"] = min(200, max(30, round(_STEPS / (videos // chosen["batch_size"]))))
    return chosen


def _augmentation(size: int | None) -> dict[str, Any]:
    if size is not None and size <= _WHOLE:
        return {"crop_scale": [1.0, 1.0], "rand_augment": None, "erase": 0.0}
    return {"crop_scale": [0.08, 1.0], "rand_augment": "rand-m7-n4-mstd0.5-inc1", "erase": 0.25}


def tells_sides(names: Iterable[str]) -> bool:
    """Whether names of classes tell left from right, so that a mirrored video belongs to another class: "pull left",
    "PushLeft", "turn_clockwise"; not "bright".
    """
    words = (word.lower() for name in names for word in re.findall(r"[A-Z]?[a-z]+", name))
    return any(word in _SIDES for word in words)


def chosen(manifest: str, task: Task = "finetune", size: int | None = None) -> dict[str, Any]:
    """What fits a training manifest, and frames of this size in pixels."""
    found = Manifest.read(manifest)
    sides = {"flip": not tells_sides(found.class_names() or [])} if task == "finetune" else {}
    return {**settings(len(found), task, size), **sides}


def explain(manifest: str, task: Task = "finetune", size: int | None = None) -> Table:
    """What was chosen for a training manifest, and why."""
    title = f"chosen for {len(Manifest.read(manifest)):,} training videos (the command line goes first)"
    table = Table(title=title, title_justify="left", show_header=False)
    for key, value in chosen(manifest, task, size).items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        table.add_row(key, f"{value:g}" if number else str(value), _WHY[task][key])
    return table
