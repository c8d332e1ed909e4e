"""Overrides: settings of a loaded model that the caller passes, because the file lacks them or to change them."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from tubelet.data.transforms import Preprocess
from tubelet.models.classifier import VideoClassifier
from tubelet.nodes import Node, parameters_of, path_of, trusted_target

_ENCODER = ("num_heads", "image_size", "num_frames", "drop_path")
_PARTS = {"decoder_num_heads": ("decoder", "num_heads"), "norm_pix_loss": ("target", "normalise")}
NAMES = (*_ENCODER, *_PARTS, "num_classes", "dtype", "preprocess")


def override(node: Node, name: str, trust: Collection[str] = (), **overrides: Any) -> Node:
    """A new node with the overrides applied. With `num_classes` any model becomes a classifier. Raises ValueError if an
    override does not exist or does not apply to this model, or if a setting is still missing."""
    node = copy.deepcopy(node)
    for key, value in overrides.items():
        if key not in NAMES:
            raise ValueError(f"unknown override '{key}', expected one of {', '.join(NAMES)}")
        if value is None or key in ("num_classes", "dtype"):
            continue
        if key == "preprocess":
            node["preprocess"] = _preprocess(node, value)
            continue
        part, argument = ("encoder", key) if key in _ENCODER else _PARTS[key]
        owner = node.get(part, node if part == "encoder" else None)
        if owner is None or argument not in parameters_of(trusted_target(owner, trust)):
            raise ValueError(f"{name} holds no {part} with a setting '{argument}', so '{key}' has no meaning")
        if part == "encoder":
            _scale_short_side(node, key, value)
        owner[argument] = value
    if (classes := overrides.get("num_classes")) is not None:
        node = _classifier(node, classes)
    return _require_known(node, name)


def _preprocess(node: Node, given: Any) -> Node:
    """The preprocessing of the file with the caller's settings, or the caller's own."""
    if isinstance(given, Preprocess):
        return {"_target_": path_of(Preprocess), **asdict(given)}
    known = [name for name in parameters_of(Preprocess) if name != "self"]
    if not isinstance(given, dict) or not given.keys() <= set(known):
        raise ValueError(f"preprocess must be a Preprocess, or settings of {', '.join(known)}; got {given!r}")
    exclusive = {"short_side": "size", "size": "short_side"}
    dropped = {other for name, other in exclusive.items() if given.get(name) is not None}
    old = {name: value for name, value in (node.get("preprocess") or {}).items() if name not in dropped}
    return {"_target_": path_of(Preprocess), **old, **given}


def _scale_short_side(node: Node, key: str, value: Any) -> None:
    """Scale the size that evaluation resizes to with the crop: short side 256 for crop 224 becomes 366 for crop 320."""
    preprocess, old = node.get("preprocess") or {}, node.get("encoder", node).get("image_size")
    if key != "image_size" or not isinstance(old, int) or not isinstance(value, int):
        return
    if preprocess.get("short_side"):
        preprocess["short_side"] = round(preprocess["short_side"] * value / old)
    if preprocess.get("size"):
        preprocess["size"] = [round(side * value / old) for side in preprocess["size"]]


def _classifier(node: Node, num_classes: int) -> Node:
    """A classifier with that many classes. Its head is new, unless the file is a classifier with the same number.
    Without a class token it pools by the mean and normalises after the pool, as VideoMAE does.
    """
    if node["_target_"] == path_of(VideoClassifier):
        same = node["num_classes"] == num_classes
        fresh = dict.fromkeys(("id2label", "value_mean", "value_std"))
        return node if same else {**node, "num_classes": num_classes, **fresh}
    encoder = node.get("encoder") or {key: value for key, value in node.items() if key != "preprocess"}
    new: Node = {
        "_target_": path_of(VideoClassifier),
        "encoder": encoder,
        "num_classes": num_classes,
        "pool": "auto",
        "norm_after_pool": True,
    }
    return {**new, "preprocess": node["preprocess"]} if node.get("preprocess") else new


def _require_known(node: Node, name: str) -> Node:
    """Raises ValueError if a setting that changes results is unknown. Other unknown settings are removed, so that the
    defaults apply.
    """
    encoder, decoder = node.get("encoder", node), node.get("decoder") or {}
    if encoder.get("num_heads", 0) is None:
        raise ValueError(
            f"{name} does not contain its number of attention heads: pass num_heads= (width {encoder['dim']})"
        )
    if decoder.get("dim") and decoder.get("num_heads", 0) is None:
        raise ValueError(
            f"{name} does not contain its decoder's number of attention heads: "
            f"pass decoder_num_heads= (width {decoder['dim']})"
        )
    for part in (node, encoder, decoder):
        for key in [key for key, value in part.items() if value is None]:
            del part[key]
    return node
