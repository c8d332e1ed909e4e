"""Frozen teachers of a target: the sources that a config names become descriptions, and their weights are loaded.

A checkpoint must hold all that the model needs to be built, so the model's node describes each teacher (class, sizes,
preprocessing) beside its source. The weights are then read from the source; later, from the checkpoint.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from tubelet.encoders.base import Encoder
from tubelet.nodes import Node, path_of
from tubelet.targets.base import Taught
from tubelet.weights.load import load_encoder, read


def describe(model: Node, trust: Collection[str] = ()) -> Node:
    """The node of a model whose target's `teacher` names sources (a path, a hub id, `timm:NAME`, or a list of them) ->
    the same node with descriptions instead. Any other node is returned as it is. Raises ValueError naming the source if
    its weights cannot be read.
    """
    target = model.get("target") or {}
    named = target.get("teacher")
    sources = [] if named is None else named if isinstance(named, list | tuple) else [named]
    if not sources:
        return model
    described = [_describe(each, trust) if isinstance(each, str) else each for each in sources]
    return {**model, "target": {**target, "teacher": described}}


def _describe(path: str, trust: Collection[str]) -> Node:
    source = read(path)
    encoder = load_encoder(path, trust=trust)
    node = {key: value for key, value in source.encoder.items() if key != "preprocess" and value is not None}
    return {
        "source": path,
        "encoder": {**node, "_partial_": True},  # the target says of which size
        "preprocess": source.node.get("preprocess") or {"_target_": path_of(type(encoder.preprocess))},
        "patch": encoder.grid.patch,
        "tubelet": encoder.grid.tubelet,
        "normed": not isinstance(encoder.norm, nn.Identity),
    }


def load_teachers(model: nn.Module, trust: Collection[str] = ()) -> None:
    """Read the weights of the frozen teachers of a model's target from their sources. Other models stay as they are."""
    target = getattr(model, "target", None)
    if not isinstance(target, Taught):
        return
    for source, teacher in zip(target.sources, target.teachers, strict=False):  # a moving average has no source
        assert isinstance(teacher, Encoder)
        grid = teacher.grid
        size: Any = grid.height if grid.height == grid.width else [grid.height, grid.width]
        loaded = load_encoder(source, trust=trust, image_size=size, num_frames=grid.frames)
        loaded.norm = nn.Identity() if isinstance(teacher.norm, nn.Identity) else loaded.norm
        teacher.load_state_dict(loaded.state_dict())
