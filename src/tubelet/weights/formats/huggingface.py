"""Reading and writing Hugging Face model directories: config.json, weights, preprocessor_config.json.

Each of the three systems has a `Family` with its names, configs and defaults.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from tubelet.encoders.base import Encoder
from tubelet.layers.position import sincos
from tubelet.models.base import encoder_of
from tubelet.models.classifier import VideoClassifier
from tubelet.nodes import Node, path_of
from tubelet.weights.formats import hf_processor
from tubelet.weights.formats.base import Files, Found
from tubelet.weights.formats.hf_common import refuse
from tubelet.weights.formats.hf_family import Family
from tubelet.weights.formats.hf_files import read_state
from tubelet.weights.formats.hf_timesformer import HFTimeSformer
from tubelet.weights.formats.hf_videomae import HFVideoMAE
from tubelet.weights.formats.hf_vivit import HFViViT
from tubelet.weights.formats.keymap import respell, to_ours, to_theirs
from tubelet.weights.source import Source, State, clean_keys, read_json

FAMILIES: dict[str, Family] = {family.model_type: family for family in (HFVideoMAE(), HFViViT(), HFTimeSformer())}
Task = Literal["pretraining", "classification", "bare"]


class HuggingFace:
    """Pretraining weights become a MaskedModel, a classifier a VideoClassifier, and a bare model its encoder."""

    def reads(self, found: Found) -> bool:
        return found.is_directory

    def read(self, found: Found) -> Source:
        config = read_json(found.path / "config.json")
        if config.get("model_type") not in FAMILIES:
            raise ValueError(
                f"{found.path / 'config.json'} has model_type '{config.get('model_type')}', "
                f"expected one of {', '.join(FAMILIES)}"
            )
        try:
            return _read(found, config, FAMILIES[config["model_type"]])
        except ValueError as error:
            if str(found.path) in str(error):
                raise
            raise ValueError(f"{found.path}: {error}") from error

    def write(self, model: nn.Module) -> Files:
        """The contents of all files. transformers' `from_pretrained` loads them and computes the same."""
        encoder = encoder_of(model)
        family = next((family for family in FAMILIES.values() if type(encoder) is family.encoder), None)
        if family is None:
            refuse(True, f"a {type(encoder).__name__}")
        assert family is not None
        if not isinstance(model, Encoder):
            refuse(type(model) not in family.classes, f"a {type(model).__name__} of {family.model_type}")
        refuse(isinstance(model, VideoClassifier) and model.pool == "attentive", "attentive pooling")
        config = {
            "architectures": [family.bare if isinstance(model, Encoder) else family.classes[type(model)]],
            "model_type": family.model_type,
            "dtype": "float32",
            **family.describe(model),
        }
        if isinstance(model, VideoClassifier):
            labels = model.id2label or {i: f"LABEL_{i}" for i in range(model.num_classes)}
            config["id2label"] = {str(i): label for i, label in labels.items()}
            config["label2id"] = {label: i for i, label in labels.items()}
            config["problem_type"] = model.problem
        return Files(_foreign_state(model, family), config, hf_processor.describe(model, family))


def _read(found: Found, config: Node, family: Family) -> Source:
    state = clean_keys(read_state(found))
    outer = {key.partition(f".{family.prefix}")[0] for key in state if f".{family.prefix}" in key}
    if len(outer) == 1:  # the whole model is a part of another module
        prefix = f"{outer.pop()}."
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    if not any(key.startswith(family.prefix) for key in state):  # a bare model is its own top level
        state = {family.prefix + key: value for key, value in state.items()}
    state = to_ours(family.weights_in(respell(state, family.spellings)), family.rows)
    task: Task = "bare"
    if "decoder.head.weight" in state:
        task = "pretraining"
    elif "head.weight" in state:
        task = "classification"
    node = node_of(config, task, state)
    node["preprocess"], unsupported = hf_processor.read(found.path, family, node.get("encoder", node))
    return Source(str(found.path), node, state, unsupported=unsupported)


def node_of(config: Node, task: Task, state: State | None = None, num_classes: int | None = None) -> Node:
    """The node of the model that a config describes, without preprocessing. `state`: its weights under our names; they
    show the number of classes and whether there is a pooler.
    """
    family, state = FAMILIES[config["model_type"]], state or {}
    encoder = family.encoder_node(config)
    if task == "pretraining":
        return family.pretraining_node(config, encoder)
    if task == "bare":
        return family.bare_node(config, encoder, state)
    classes = num_classes or state["head.weight"].shape[0]
    return {
        "_target_": path_of(VideoClassifier),
        "encoder": encoder,
        "num_classes": classes,
        "problem_type": config.get("problem_type"),
        **family.head_node(config),
        "id2label": _labels(config, classes),
    }


def _labels(config: Node, num_classes: int) -> dict[int, str] | None:
    """The class names, or None if the config has none: transformers then writes names such as `LABEL_3`."""
    labels = {int(i): label for i, label in (config.get("id2label") or {}).items()}
    named = len(labels) == num_classes and any(label != f"LABEL_{i}" for i, label in labels.items())
    return labels if named else None


def _foreign_state(model: nn.Module, family: Family) -> State:
    """The weights under their names, without the fixed position tables, which transformers computes itself."""
    state: dict[str, Any] = {key: value.float() for key, value in model.state_dict().items()}
    for key in [key for key, _ in model.named_buffers() if key in state]:
        table = state.pop(key)
        # transformers computes this table itself, so another one would be lost without an error
        own = torch.equal(table.float().cpu(), sincos(*table.shape[1:]))
        refuse(not own, f"{key} other than VideoMAE's table of this clip size")
    if isinstance(model, Encoder):
        state = {f"encoder.{key}": value for key, value in state.items()}
    if isinstance(model, VideoClassifier) and model.value_mean is not None and model.value_std is not None:
        # the units of a regression become a part of its head
        state["head.weight"] = state["head.weight"] * model.value_std[:, None]
        state["head.bias"] = state["head.bias"] * model.value_std + model.value_mean
    theirs = family.weights_out(to_theirs(state, family.rows))
    if isinstance(model, Encoder):
        theirs = {key.removeprefix(family.prefix): value for key, value in theirs.items()}
    return {key: value.contiguous() for key, value in theirs.items()}
