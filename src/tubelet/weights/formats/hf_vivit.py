"""ViViT in Hugging Face's format, model_type `vivit`: model 1 of the paper, as a classifier or a bare model."""

from __future__ import annotations

from typing import Any

from torch import nn

from tubelet.encoders.vivit import ViViT
from tubelet.models.base import encoder_of
from tubelet.models.classifier import VideoClassifier
from tubelet.nodes import Node, path_of
from tubelet.weights.formats.hf_common import describe_blocks, one_size, refuse, settings
from tubelet.weights.formats.hf_family import Family
from tubelet.weights.formats.keymap import Row
from tubelet.weights.source import State

_LAYER = "vivit.encoder.layer.{i}"
_PAIRS = [
    ("encoder.patch_embed.proj", "vivit.embeddings.patch_embeddings.projection"),
    ("encoder.blocks.{i}.attn.proj", f"{_LAYER}.attention.output.dense"),
    ("encoder.blocks.{i}.norm1", f"{_LAYER}.layernorm_before"),
    ("encoder.blocks.{i}.norm2", f"{_LAYER}.layernorm_after"),
    ("encoder.blocks.{i}.mlp.fc1", f"{_LAYER}.intermediate.dense"),
    ("encoder.blocks.{i}.mlp.fc2", f"{_LAYER}.output.dense"),
    ("encoder.norm", "vivit.layernorm"),
    ("encoder.pooler.dense", "vivit.pooler.dense"),
    ("head", "classifier"),
]
ROWS: list[Row] = [
    ("encoder.cls_token", "vivit.embeddings.cls_token"),
    ("encoder.positions", "vivit.embeddings.position_embeddings"),
]
for _kind in ("weight", "bias"):
    _qkv = tuple(f"{_LAYER}.attention.attention.{part}.{_kind}" for part in ("query", "key", "value"))
    ROWS += [(f"encoder.blocks.{{i}}.attn.qkv.{_kind}", _qkv)]
    ROWS += [(f"{ours}.{_kind}", f"{theirs}.{_kind}") for ours, theirs in _PAIRS]


class HFViViT(Family):
    model_type = "vivit"
    encoder = ViViT
    classes = {VideoClassifier: "VivitForVideoClassification"}
    bare = "VivitModel"
    prefix = "vivit."
    rows = ROWS
    # names in the memory of transformers 5 -> names in the files of the hub, which transformers 5 still writes
    spellings = [
        (r"vivit\.layers\.", "vivit.encoder.layer."),
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ]
    preprocess = {
        "size": {"shortest_edge": 256},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "rescale_factor": 1 / 127.5,
        "offset": True,
        "frame_stride": 2,
    }
    processor = "VivitImageProcessor"
    takes_offset = True

    def encoder_node(self, config: Node) -> Node:
        tubelet, *patch = config.get("tubelet_size", (2, 16, 16))
        return {
            "_target_": path_of(ViViT),
            **settings(config, num_frames=32, layer_norm_eps=1e-6, hidden_act="gelu_fast"),
            "tubelet_size": tubelet,
            "patch_size": one_size(patch, "tubelet_size"),
            "bias": "qkv" if config.get("qkv_bias", True) else "none",
            "init_std": config.get("initializer_range", 0.02),
            "pooler_act": config.get("pooler_act", "tanh"),
        }

    def bare_node(self, config: Node, encoder: Node, state: State) -> Node:
        """The file of a bare model has a pooler, unless it was created without one."""
        width = config.get("pooler_output_size") or encoder["dim"]
        return {**encoder, "pooler_dim": width if "encoder.pooler.dense.weight" in state else None}

    def describe(self, model: nn.Module) -> Node:
        encoder: Any = encoder_of(model)
        block, grid = encoder.blocks[0], encoder.grid
        refuse(block.attn.q_bias is not None, "a bias on queries and values alone in ViViT")
        refuse(isinstance(encoder.norm, nn.Identity), "a ViViT without its last norm")
        if isinstance(model, VideoClassifier):
            refuse(
                model.pool != "cls" or not isinstance(model.fc_norm, nn.Identity),
                "a ViViT that pools by other than cls",
            )
            refuse(encoder.pooler is not None, "a classifier on a ViViT with a pooler")
        config = {
            **describe_blocks(encoder),
            "tubelet_size": [grid.tubelet, grid.patch, grid.patch],
            "qkv_bias": block.attn.qkv.bias is not None,
        }
        if encoder.pooler is not None:
            config |= {"pooler_output_size": encoder.pooler.dense.out_features, "pooler_act": encoder.pooler.act}
        return config
