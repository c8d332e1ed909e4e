"""The common parts of the Hugging Face configs of the three systems."""

from __future__ import annotations

from typing import Any

from tubelet.nodes import Node
from tubelet.weights.formats.base import CannotHold


def settings(config: Node, **defaults: Any) -> Node:
    """The arguments that all our encoders share. `defaults`: config defaults that differ per family."""
    dim = config.get("hidden_size", 768)
    return {
        "image_size": config.get("image_size", 224),
        "num_frames": config.get("num_frames", defaults["num_frames"]),
        "in_channels": config.get("num_channels", 3),
        "dim": dim,
        "depth": config.get("num_hidden_layers", 12),
        "num_heads": config.get("num_attention_heads", 12),
        "mlp_ratio": config.get("intermediate_size", 3072) / dim,
        "act": config.get("hidden_act", defaults["hidden_act"]),
        "eps": config.get("layer_norm_eps", defaults["layer_norm_eps"]),
        "dropout": config.get("hidden_dropout_prob", 0.0),
        "attention_dropout": config.get("attention_probs_dropout_prob", 0.0),
    }


def describe_blocks(encoder: Any) -> Node:
    """The inverse of `settings`: the config of an encoder, read from its modules."""
    block, grid = encoder.blocks[0], encoder.grid
    return {
        "image_size": grid.height if grid.height == grid.width else [grid.height, grid.width],
        "num_frames": grid.frames,
        "num_channels": encoder.in_channels,
        "hidden_size": encoder.dim,
        "num_hidden_layers": len(encoder.blocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": block.mlp.act,
        "layer_norm_eps": block.norm1.eps,
        "hidden_dropout_prob": block.mlp.dropout.p,
        "attention_probs_dropout_prob": block.attn.attention_dropout,
    }


def block_settings(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """Settings that two blocks must share in this format: name -> (value in a, value in b)."""
    return {
        "act": (a.mlp.act, b.mlp.act),
        "eps": (a.norm1.eps, b.norm1.eps),
        "dropout": (a.mlp.dropout.p, b.mlp.dropout.p),
        "attention dropout": (a.attn.attention_dropout, b.attn.attention_dropout),
        "q/v bias": (a.attn.q_bias is not None, b.attn.q_bias is not None),
    }


def one_size(size: Any, name: str) -> int:
    """One number from a size that may be given per axis. Only square patches are supported."""
    if isinstance(size, int):
        return size
    if len(set(size)) != 1:
        raise ValueError(f"{name} {list(size)} is not square, which is not supported")
    return size[0]


def refuse(condition: bool, what: str) -> None:
    """Raises CannotHold if `condition` is True: the format has no place for `what`."""
    if condition:
        raise CannotHold(f"the Hugging Face format cannot hold {what}")
