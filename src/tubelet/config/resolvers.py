"""What a config may leave to the data: `${problem:...}`, `${classes:...}`, `${units:...}` and `${small:...}`. Only then
are manifests read, which takes pyarrow. And `${point:...}`, the name of a point of a study.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


def problem(*manifests: str | None) -> str:
    """What the labels of the first manifest with any can teach. Manifests that are not written yet, such as the demo's,
    have one class a video.
    """
    for path in manifests:
        if path is not None and Path(path).expanduser().is_file():
            from tubelet.data.manifest import Manifest

            if (found := Manifest.read(path).problem) is not None:
                return found
    return "single_label_classification"


def classes(given: int | None, *manifests: str | None) -> int:
    """`given`, else the number of classes of the first manifest there is: names in its labels.txt, labels in it, or how
    many numbers it has for each video.
    """
    if given is not None:
        return given
    from tubelet.data.manifest import Manifest

    for path in manifests:
        if path is not None:
            manifest = Manifest.read(path)
            return len(manifest.class_names() or []) or manifest.num_classes or manifest.num_values
    raise ValueError("the number of classes is not known: set data.num_classes or data.train")


def units(which: str, problem: str, manifest: str | None) -> list[float] | None:
    """`mean` or `std` of each number in the training manifest of a regression, see `Manifest.value_units`."""
    if problem != "regression" or manifest is None or not Path(manifest).expanduser().is_file():
        return None
    from tubelet.data.manifest import Manifest

    mean, std = Manifest.read(manifest).value_units()
    return mean if which == "mean" else std


def small(key: str, manifest: str | None, task: Any = "finetune", size: Any = None) -> Any:
    """The setting `key` for a training manifest, a task and a frame size, see tubelet.data.small_data."""
    if manifest is None:
        raise ValueError("it depends on the number of training videos: set data.train")
    from tubelet.data.small_data import chosen

    return chosen(manifest, task, size if isinstance(size, int) else None)[key]


def scene_classes(scene: str) -> int:
    """Classes of a demo scene, whose videos may not be rendered yet."""
    from tubelet.demo.scenes import CLASSES, check_scene

    check_scene(scene)
    return CLASSES[scene]


_NAMELESS = r"(experiment|name|resume|sweep|logger|callbacks|data\.num_workers|trainer\.(devices|num_nodes|compile))\b"
"""Overrides that leave a run the same point of a study."""


def point(overrides: Iterable[str]) -> str:
    """What names a point of a study, however large the grid grows: `masking-tube_masking.ratio-0.5_seed-0`."""
    named = sorted(override for override in overrides if not re.match(rf"[+~]*{_NAMELESS}", override))
    return "_".join(re.sub(r"[^\w.-]+", "-", override).strip("-") for override in named) or "point"


def directory_name(name: str) -> str:
    """`name`, or, if it is too long for a file system, its beginning and a checksum of all of it."""
    data = name.encode()
    if len(data) <= 255:
        return name
    return f"{data[:240].decode(errors='ignore')}_{zlib.crc32(data):08x}"


OmegaConf.register_new_resolver("point", lambda overrides: directory_name(point(overrides)), replace=True)
OmegaConf.register_new_resolver("scene_classes", scene_classes, replace=True)
OmegaConf.register_new_resolver("problem", problem, replace=True)
OmegaConf.register_new_resolver("classes", classes, replace=True)
OmegaConf.register_new_resolver("units", units, replace=True)
OmegaConf.register_new_resolver("small", small, replace=True)
