"""Checks of a manifest's labels: errors for what cannot be learned, warnings for what is unusual."""

from __future__ import annotations

import logging

import pyarrow.compute as pc
import torch
from torch import Tensor

from tubelet.data.manifest import LABEL_COLUMNS, Manifest

log = logging.getLogger(__name__)

_UNEVEN_RATIO = 10  # videos of the largest class / of the smallest class; a warning from this ratio on


def count_classes(manifest: Manifest, name: str, num_classes: int) -> Tensor:
    """The number of videos of each class, int64 [num_classes].

    Raises ValueError with `name` ("data.train train.csv") if a video has no label, or a label that the model lacks.
    """
    require(manifest, "label", name)
    check_known(manifest, name, num_classes)
    labels = manifest.table["label"].to_numpy().astype("int64")
    return torch.bincount(torch.from_numpy(labels), minlength=num_classes)


def require(manifest: Manifest, column: str, name: str, all_videos: bool = True) -> None:
    """Raises ValueError if a video has nothing in the column ("label", "labels" or "values"), or, without `all_videos`,
    if the manifest has another of these instead.
    """
    missing, videos, held = manifest.table[column].null_count, len(manifest), manifest.problem
    other = None if held is None or LABEL_COLUMNS[held] == column else LABEL_COLUMNS[held]
    if missing and (all_videos or (other and missing == videos)):
        what = "no label" if column == "label" else f"nothing in the column `{column}`"
        advice = f"; the column `{other}` goes with model.problem_type={held}" if other else ""
        raise ValueError(f"{name}: {missing} of its {videos} videos have {what}{advice}")


def check_known(manifest: Manifest, name: str, num_classes: int, column: str = "label") -> None:
    """Raises ValueError if a label is too large for the model. Videos without a label are accepted."""
    labels = manifest.table[column]
    largest = pc.max(labels if column == "label" else pc.list_flatten(labels)).as_py()
    if largest is not None and largest >= num_classes:
        known = f"{num_classes} classes (0 to {num_classes - 1})"
        raise ValueError(f"{name}: label {largest} is unknown, the model has {known}")


def check_training(counts: Tensor, name: str, names: dict[int, str] | None) -> None:
    """Raises ValueError if a class has no training video. Warns if some classes are much rarer than others."""
    empty = (counts == 0).nonzero().flatten().tolist()
    if empty == [0]:
        raise ValueError(
            f"{name}: no video has label 0, the labels go from 1 to {len(counts) - 1}: labels are numbers from 0 on, "
            "subtract 1"
        )
    if empty:
        raise ValueError(f"{name}: no video of class {_names_of(empty, names)}, of {len(counts)} classes")
    least, most = int(counts.argmin()), int(counts.argmax())
    if counts[most] >= _UNEVEN_RATIO * counts[least]:
        log.warning(
            "%s: classes are uneven, from %d videos (%s) to %d (%s): see method.class_balanced",
            name, counts[least], _names_of([least], names), counts[most], _names_of([most], names),
        )  # fmt: skip


def warn_missing(
    counts: Tensor, name: str, names: dict[int, str] | None, consequence: str = "its accuracy is not measured"
) -> None:
    """Warn of classes without a video."""
    empty = (counts == 0).nonzero().flatten().tolist()
    if empty:
        log.warning("%s: no video of class %s: %s", name, _names_of(empty, names), consequence)


def match_names(names: list[str], known: dict[int, str], where: str) -> list[int]:
    """The model's number of each class in `names`. Names are compared without regard to case, underscores and quotes.

    Raises ValueError if the model does not have one of them: the same number of other classes would be tested silently.
    """
    numbers = {_plain(name): number for number, name in known.items()}
    missing = [name for name in names if _plain(name) not in numbers]
    if missing:
        raise ValueError(
            f"{where}: labels.txt names classes that the model does not have: {_some(missing)}; the model has "
            f"{_some(list(known.values()))}"
        )
    found = [numbers[_plain(name)] for name in names]
    if found != sorted(found):
        log.warning("%s: its classes have another order than the model's; they are matched by name", where)
    return found


def _plain(name: str) -> str:
    return name.strip().strip("\"'").replace("_", " ").lower()


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _names_of(classes: list[int], names: dict[int, str] | None) -> str:
    shown = [f"{c} ({names[c]})" if names else str(c) for c in classes[:5]]
    return ", ".join(shown) + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")
