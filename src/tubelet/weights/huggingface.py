"""Hugging Face model directories, both ways: config.json, weights, preprocessor_config.json.

The three systems differ in `hf_videomae`, `hf_vivit` and `hf_timesformer`: names, configs and defaults as data.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from torch import nn

from tubelet.encoders.base import Encoder
from tubelet.encoders.timesformer import TimeSformer
from tubelet.encoders.vit import VideoViT
from tubelet.encoders.vivit import ViViT
from tubelet.layers.position import sincos
from tubelet.models.classifier import VideoClassifier
from tubelet.models.mae import MaskedAutoencoder
from tubelet.weights import hf_processor, hf_timesformer, hf_videomae, hf_vivit
from tubelet.weights.build import Node, target
from tubelet.weights.hf_common import encoder_of, refuse
from tubelet.weights.keymap import respell, to_ours, to_theirs
from tubelet.weights.source import Source, State, clean_keys, read_torch_file

FAMILIES: dict[str, ModuleType] = {"videomae": hf_videomae, "vivit": hf_vivit, "timesformer": hf_timesformer}
ENCODERS: dict[type, str] = {VideoViT: "videomae", ViViT: "vivit", TimeSformer: "timesformer"}


def download(name: str) -> Path:
    """A hub id -> the local snapshot. Raises ValueError if it can be found neither on the hub nor in the cache."""
    try:
        found = Path(snapshot_download(name, allow_patterns=["*.json", "model*.safetensors"]))
        if not list(found.glob("model*.safetensors")):
            found = Path(snapshot_download(name, allow_patterns=["*.json", "pytorch_model*.bin"]))
    except Exception as error:  # the hub's client raises a dozen kinds, all of which mean this
        raise ValueError(f"{name} is no file or directory, and could not be fetched from the hub: {error}") from error
    return found


def read(directory: Path) -> Source:
    """Pretraining weights describe a MaskedAutoencoder, a classifier a VideoClassifier, a bare model its encoder."""
    config = json.loads((directory / "config.json").read_text())
    if config.get("model_type") not in FAMILIES:
        raise ValueError(
            f"{directory / 'config.json'} has model_type '{config.get('model_type')}', "
            f"expected one of {', '.join(FAMILIES)}"
        )
    family = FAMILIES[config["model_type"]]
    state = clean_keys(_weights(directory))
    if not any(key.startswith(family.PREFIX) for key in state):  # a bare model is its own top level
        state = {family.PREFIX + key: value for key, value in state.items()}
    state = respell(state, family.SPELLINGS)
    if family is hf_timesformer and family.PATCH_WEIGHT in state:
        state[family.PATCH_WEIGHT] = state[family.PATCH_WEIGHT].unsqueeze(2)  # [D,C,p,p] -> [D,C,1,p,p]
    state = to_ours(state, family.ROWS)
    node = _node(family, config, state)
    node["preprocess"] = hf_processor.read(directory, family, node.get("encoder", node))
    return Source(str(directory), node, state)


def _node(family: ModuleType, config: Node, state: State) -> Node:
    encoder = family.encoder_node(config)
    if family is hf_videomae and "decoder.head.weight" in state:
        return hf_videomae.pretraining_node(config, encoder)
    if "head.weight" not in state:
        has_pooler = "encoder.pooler.dense.weight" in state
        return hf_vivit.bare_node(config, encoder, has_pooler) if family is hf_vivit else encoder
    num_classes = state["head.weight"].shape[0]
    return {
        "_target_": target(VideoClassifier),
        "encoder": encoder,
        "num_classes": num_classes,
        **family.head_node(config),
        "id2label": _labels(config, num_classes),
    }


def _labels(config: Node, num_classes: int) -> dict[int, str] | None:
    """None if the config names no classes; `LABEL_3` is what transformers writes then."""
    labels = {int(i): label for i, label in (config.get("id2label") or {}).items()}
    named = len(labels) == num_classes and any(label != f"LABEL_{i}" for i, label in labels.items())
    return labels if named else None


def _weights(directory: Path) -> State:
    for kind, load in (("model.safetensors", load_file), ("pytorch_model.bin", read_torch_file)):
        if (directory / kind).is_file():
            return load(directory / kind)
        if (index := directory / f"{kind}.index.json").is_file():
            shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            return {key: value for shard in shards for key, value in load(directory / shard).items()}
    raise ValueError(f"{directory} holds neither model.safetensors nor pytorch_model.bin")


def to_files(model: nn.Module) -> tuple[State, Node, Node]:
    """Weights, config and processor of a model of ours. Raises ValueError naming what the format cannot hold."""
    encoder = encoder_of(model)
    refuse(type(encoder) not in ENCODERS, f"a {type(encoder).__name__}")
    name = ENCODERS[type(encoder)]
    family = FAMILIES[name]
    refuse(isinstance(model, MaskedAutoencoder) and family is not hf_videomae, f"a masked autoencoder of {name}")
    refuse(isinstance(model, VideoClassifier) and model.pool == "attentive", "attentive pooling")
    config = {
        "architectures": [family.BARE if isinstance(model, Encoder) else family.CLASSES[type(model)]],
        "model_type": name,
        "dtype": "float32",
        **family.describe(model),
    }
    if isinstance(model, VideoClassifier):
        labels = model.id2label or {i: f"LABEL_{i}" for i in range(model.num_classes)}
        config["id2label"] = {str(i): label for i, label in labels.items()}
        config["label2id"] = {label: i for i, label in labels.items()}
    return _foreign_state(model, family), config, hf_processor.describe(model, family)


def _foreign_state(model: nn.Module, family: ModuleType) -> State:
    """Weights by foreign names, without the fixed tables, which are computed there."""
    state = {key: value.float() for key, value in model.state_dict().items()}
    for key in [key for key, _ in model.named_buffers() if key in state]:
        table = state.pop(key)
        own = torch.equal(table.float().cpu(), sincos(*table.shape[1:]))
        refuse(not own, f"{key} other than VideoMAE's table of this clip size")
    if isinstance(model, Encoder):
        state = {f"encoder.{key}": value for key, value in state.items()}
    theirs = to_theirs(state, family.ROWS)
    if family is hf_timesformer:
        theirs[family.PATCH_WEIGHT] = theirs[family.PATCH_WEIGHT].squeeze(2)
    if isinstance(model, Encoder):
        theirs = {key.removeprefix(family.PREFIX): value for key, value in theirs.items()}
    return {key: value.contiguous() for key, value in theirs.items()}
