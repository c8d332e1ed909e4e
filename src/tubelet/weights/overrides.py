"""What a caller may say of a model that a file leaves open, or change."""

from __future__ import annotations

import copy
from typing import Any

from tubelet.encoders.vit import VideoViT
from tubelet.models.classifier import VideoClassifier
from tubelet.models.mae import MaskedAutoencoder
from tubelet.weights.build import Node, target

_ENCODER = ("num_heads", "image_size", "num_frames", "drop_path")
_DECODER = {"decoder_num_heads": "decoder_heads", "norm_pix_loss": "norm_pix_loss"}
NAMES = (*_ENCODER, *_DECODER, "num_classes", "dtype")


def override(node: Node, name: str, **overrides: Any) -> Node:
    """A new node with the overrides applied. `num_classes` makes a classifier of anything. Raises ValueError if one
    does not exist or does not concern this model, or if the file leaves open what a caller must say."""
    node = copy.deepcopy(node)
    for key, value in overrides.items():
        if key not in NAMES:
            raise ValueError(f"unknown override '{key}', expected one of {', '.join(NAMES)}")
        if value is None or key in ("num_classes", "dtype"):
            continue
        if key in _ENCODER:
            _follow_size(node, key, value)
            node.get("encoder", node)[key] = value
        elif node["_target_"] != target(MaskedAutoencoder):
            raise ValueError(f"{name} holds no masked autoencoder, so '{key}' has no meaning")
        else:
            node[_DECODER[key]] = value
    if (classes := overrides.get("num_classes")) is not None:
        node = _classifier(node, classes)
    return _complete(node, name)


def _follow_size(node: Node, key: str, value: Any) -> None:
    """Evaluation resizes in proportion: 256 to crop 224 becomes 366 to crop 320."""
    preprocess, old = node.get("preprocess") or {}, node.get("encoder", node).get("image_size")
    if key == "image_size" and preprocess.get("short_side") and isinstance(old, int) and isinstance(value, int):
        preprocess["short_side"] = round(preprocess["short_side"] * value / old)


def _classifier(node: Node, num_classes: int) -> Node:
    """A classifier with that many classes; a fresh head unless it has that many already."""
    if node["_target_"] == target(VideoClassifier):
        same = node["num_classes"] == num_classes
        return node if same else {**node, "num_classes": num_classes, "id2label": None}
    encoder = node.get("encoder") or {key: value for key, value in node.items() if key != "preprocess"}
    mean = encoder["_target_"] == target(VideoViT)  # it has no class token
    new: Node = {
        "_target_": target(VideoClassifier),
        "encoder": {**encoder, "final_norm": False} if mean else encoder,
        "num_classes": num_classes,
        "pool": "mean" if mean else "cls",
    }
    return {**new, "preprocess": node["preprocess"]} if node.get("preprocess") else new


def _complete(node: Node, name: str) -> Node:
    """Nothing that changes numbers may stay unsaid."""
    encoder = node.get("encoder", node)
    if encoder.get("num_heads", 0) is None:
        raise ValueError(f"{name} does not tell its attention heads: pass num_heads= (width {encoder['dim']})")
    if node.get("decoder_dim") and node.get("decoder_heads", 0) is None:
        raise ValueError(
            f"{name} does not tell its decoder's attention heads: pass decoder_num_heads= (width {node['decoder_dim']})"
        )
    for part in (node, encoder):
        for key in [key for key, value in part.items() if value is None]:
            del part[key]
    return node
