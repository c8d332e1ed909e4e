"""What a config may leave to the data: `${classes:...}` and `${small:...}`. Only then are manifests read, which takes
pyarrow.
"""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf


def classes(given: int | None, *manifests: str | None) -> int:
    """`given`, else the number of classes of the first manifest there is: names in its labels.txt, or labels in it."""
    if given is not None:
        return given
    from tubelet.data.manifest import Manifest

    for path in manifests:
        if path is not None:
            manifest = Manifest.read(path)
            return len(manifest.class_names() or []) or manifest.num_classes
    raise ValueError("the number of classes is not known: set data.num_classes or data.train")


def small(key: str, manifest: str | None) -> Any:
    """The setting `key` for a training manifest of so many videos, see tubelet.data.small_data."""
    if manifest is None:
        raise ValueError("it depends on the number of training videos: set data.train")
    from tubelet.data.manifest import Manifest
    from tubelet.data.small_data import settings

    return settings(len(Manifest.read(manifest)))[key]


OmegaConf.register_new_resolver("classes", classes, replace=True)
OmegaConf.register_new_resolver("small", small, replace=True)
