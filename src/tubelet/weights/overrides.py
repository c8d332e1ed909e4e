"""What a caller may say of a model that a file leaves open, or change."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

from tubelet.models.classifier import VideoClassifier
from tubelet.nodes import Node, parameters_of, path_of, trusted_target

_ENCODER = ("num_heads", "image_size", "num_frames", "drop_path")
_PARTS = {"decoder_num_heads": ("decoder", "num_heads"), "norm_pix_loss": ("target", "normalise")}
NAMES = (*_ENCODER, *_PARTS, "num_classes", "dtype")


def override(node: Node, name: str, trust: Collection[str] = (), **overrides: Any) -> Node:
    """A new node with the overrides applied. `num_classes` makes a classifier of anything. Raises ValueError if one
    does not exist or does not concern this model, or if the file leaves open what a caller must say."""
    node = copy.deepcopy(node)
    for key, value in overrides.items():
        if key not in NAMES:
            raise ValueError(f"unknown override '{key}', expected one of {', '.join(NAMES)}")
        if value is None or key in ("num_classes", "dtype"):
            continue
        part, argument = ("encoder", key) if key in _ENCODER else _PARTS[key]
        owner = node.get(part, node if part == "encoder" else None)
        if owner is None or argument not in parameters_of(trusted_target(owner, trust)):
            raise ValueError(f"{name} holds no {part} with a setting '{argument}', so '{key}' has no meaning")
        if part == "encoder":
            _follow_size(node, key, value)
        owner[argument] = value
    if (classes := overrides.get("num_classes")) is not None:
        node = _classifier(node, classes)
    return _complete(node, name)


def _follow_size(node: Node, key: str, value: Any) -> None:
    """Evaluation resizes in proportion: 256 to crop 224 becomes 366 to crop 320."""
    preprocess, old = node.get("preprocess") or {}, node.get("encoder", node).get("image_size")
    if key == "image_size" and preprocess.get("short_side") and isinstance(old, int) and isinstance(value, int):
        preprocess["short_side"] = round(preprocess["short_side"] * value / old)


def _classifier(node: Node, num_classes: int) -> Node:
    """A classifier with that many classes; a fresh head unless it has that many already. Without a class token it pools
    by the mean and normalises after it, as VideoMAE does.
    """
    if node["_target_"] == path_of(VideoClassifier):
        same = node["num_classes"] == num_classes
        return node if same else {**node, "num_classes": num_classes, "id2label": None}
    encoder = node.get("encoder") or {key: value for key, value in node.items() if key != "preprocess"}
    new: Node = {
        "_target_": path_of(VideoClassifier),
        "encoder": encoder,
        "num_classes": num_classes,
        "pool": "auto",
        "norm_after_pool": True,
    }
    return {**new, "preprocess": node["preprocess"]} if node.get("preprocess") else new


def _complete(node: Node, name: str) -> Node:
    """Nothing that changes numbers may stay unsaid."""
    encoder, decoder = node.get("encoder", node), node.get("decoder") or {}
    if encoder.get("num_heads", 0) is None:
        raise ValueError(f"{name} does not tell its attention heads: pass num_heads= (width {encoder['dim']})")
    if decoder.get("dim") and decoder.get("num_heads", 0) is None:
        raise ValueError(
            f"{name} does not tell its decoder's attention heads: pass decoder_num_heads= (width {decoder['dim']})"
        )
    for part in (node, encoder, decoder):
        for key in [key for key, value in part.items() if value is None]:
            del part[key]
    return node
