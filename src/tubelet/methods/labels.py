"""Whether a manifest's labels can be learned, and what is odd about them."""

from __future__ import annotations

import logging

import pyarrow.compute as pc
import torch
from torch import Tensor

from tubelet.data.manifest import Manifest

log = logging.getLogger(__name__)

_UNEVEN = 10  # times as many videos in the largest class as in the smallest: worth a warning


def count_classes(manifest: Manifest, name: str, num_classes: int) -> Tensor:
    """Videos of each class, int64 [num_classes].

    Raises ValueError naming `name`, "data.train train.csv" say, if a video has no label or one the model does not know.
    """
    labels = manifest.table["label"]
    if labels.null_count:
        raise ValueError(f"{name}: {labels.null_count} of its {len(labels)} videos have no label")
    check_known(manifest, name, num_classes)
    return torch.bincount(torch.from_numpy(labels.to_numpy().astype("int64")), minlength=num_classes)


def check_known(manifest: Manifest, name: str, num_classes: int) -> None:
    """Videos without a label pass."""
    largest = pc.max(manifest.table["label"]).as_py()
    if largest is not None and largest >= num_classes:
        known = f"{num_classes} classes (0 to {num_classes - 1})"
        raise ValueError(f"{name}: label {largest} is unknown, the model has {known}")


def check_training(counts: Tensor, name: str, names: dict[int, str] | None) -> None:
    """Raises ValueError if a class has no training video; warns of classes that are much rarer than others."""
    empty = (counts == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"{name}: {_list(empty, names)} of the {len(counts)} classes have no video")
    least, most = int(counts.argmin()), int(counts.argmax())
    if counts[most] >= _UNEVEN * counts[least]:
        log.warning(
            "%s: classes are uneven, from %d videos (%s) to %d (%s): see method.class_balanced",
            name, counts[least], _list([least], names), counts[most], _list([most], names),
        )  # fmt: skip


def warn_missing(counts: Tensor, name: str, names: dict[int, str] | None) -> None:
    """Of classes that an evaluation says nothing about."""
    empty = (counts == 0).nonzero().flatten().tolist()
    if empty:
        log.warning("%s: no video of %s, so nothing is known of how they do", name, _list(empty, names))


def _list(classes: list[int], names: dict[int, str] | None) -> str:
    shown = [f"{c} ({names[c]})" if names else str(c) for c in classes[:5]]
    return ", ".join(shown) + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")
