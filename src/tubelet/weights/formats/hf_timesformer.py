"""TimeSformer in Hugging Face's format, model_type `timesformer`: classifiers and the bare model."""

from __future__ import annotations

from typing import Any

from torch import nn

from tubelet.encoders.timesformer import TimeSformer
from tubelet.models.base import encoder_of
from tubelet.models.classifier import VideoClassifier
from tubelet.nodes import Node, path_of
from tubelet.weights.formats.hf_common import describe_blocks, one_size, refuse, settings
from tubelet.weights.formats.hf_family import Family
from tubelet.weights.formats.keymap import Row
from tubelet.weights.source import State

_LAYER = "timesformer.encoder.layer.{i}"
_PAIRS = [
    ("encoder.patch_embed.proj", "timesformer.embeddings.patch_embeddings.projection"),
    ("encoder.blocks.{i}.attn.qkv", f"{_LAYER}.attention.attention.qkv"),
    ("encoder.blocks.{i}.attn.proj", f"{_LAYER}.attention.output.dense"),
    ("encoder.blocks.{i}.temporal_norm", f"{_LAYER}.temporal_layernorm"),
    ("encoder.blocks.{i}.temporal_attn.qkv", f"{_LAYER}.temporal_attention.attention.qkv"),
    ("encoder.blocks.{i}.temporal_attn.proj", f"{_LAYER}.temporal_attention.output.dense"),
    ("encoder.blocks.{i}.temporal_proj", f"{_LAYER}.temporal_dense"),
    ("encoder.blocks.{i}.norm1", f"{_LAYER}.layernorm_before"),
    ("encoder.blocks.{i}.norm2", f"{_LAYER}.layernorm_after"),
    ("encoder.blocks.{i}.mlp.fc1", f"{_LAYER}.intermediate.dense"),
    ("encoder.blocks.{i}.mlp.fc2", f"{_LAYER}.output.dense"),
    ("encoder.norm", "timesformer.layernorm"),
    ("head", "classifier"),
]
ROWS: list[Row] = [
    ("encoder.cls_token", "timesformer.embeddings.cls_token"),
    ("encoder.positions", "timesformer.embeddings.position_embeddings"),
    ("encoder.time_positions", "timesformer.embeddings.time_embeddings"),
    *((f"{ours}.{kind}", f"{theirs}.{kind}") for ours, theirs in _PAIRS for kind in ("weight", "bias")),
]
_PATCH_WEIGHT = "timesformer.embeddings.patch_embeddings.projection.weight"
"""It is a 2-D convolution [D,C,p,p] in their format, and a 3-D one of one frame [D,C,1,p,p] here."""


class HFTimeSformer(Family):
    model_type = "timesformer"
    encoder = TimeSformer
    classes = {VideoClassifier: "TimesformerForVideoClassification"}
    bare = "TimesformerModel"
    prefix = "timesformer."
    rows = ROWS
    # those of the published weights; the defaults of transformers' processor class are different
    preprocess = {
        "image_mean": [0.45, 0.45, 0.45],
        "image_std": [0.225, 0.225, 0.225],
        "frame_stride": 32,
    }

    def encoder_node(self, config: Node) -> Node:
        return {
            "_target_": path_of(TimeSformer),
            **settings(config, num_frames=8, layer_norm_eps=1e-6, hidden_act="gelu"),
            "patch_size": one_size(config.get("patch_size", 16), "patch_size"),
            "bias": "qkv" if config.get("qkv_bias", True) else "none",
            "attention_type": config.get("attention_type", "divided_space_time"),
            "drop_path": float(config.get("drop_path_rate", 0)),
            "init_std": config.get("initializer_range", 0.02),
        }

    def describe(self, model: nn.Module) -> Node:
        encoder: Any = encoder_of(model)
        block, grid = encoder.blocks[0], encoder.grid
        refuse(grid.height != grid.width, f"a TimeSformer of {grid.height}x{grid.width}: its frames are square")
        refuse(block.attn.q_bias is not None, "a bias on queries and values alone in TimeSformer")
        refuse(isinstance(encoder.norm, nn.Identity), "a TimeSformer without its last norm")
        if isinstance(model, VideoClassifier):
            pools_cls = model.pool == "cls" and isinstance(model.fc_norm, nn.Identity)
            refuse(not pools_cls, "a TimeSformer that pools by other than cls")
        return {
            **describe_blocks(encoder),
            "patch_size": grid.patch,
            "qkv_bias": block.attn.qkv.bias is not None,
            "attention_type": encoder.attention_type,
        }

    def weights_in(self, state: State) -> State:
        if _PATCH_WEIGHT not in state:
            return state
        return {**state, _PATCH_WEIGHT: state[_PATCH_WEIGHT].unsqueeze(2)}

    def weights_out(self, state: State) -> State:
        return {**state, _PATCH_WEIGHT: state[_PATCH_WEIGHT].squeeze(2)}
