"""Checkpoints of the original VideoMAE and of VideoMAEv2: https://github.com/MCG-NJU/VideoMAE (`.pth`).

Our names are the same as theirs, but a fine-tuned file lacks the prefix `encoder.`. A file contains neither the number
of heads nor the clip size. Both are known for the published widths (16 frames of 224x224). For another width the caller
must pass the number of heads: a wrong number would load without an error and compute wrong results.
"""

from __future__ import annotations

from tubelet.data.transforms import Preprocess
from tubelet.decoders.self_attention import SelfAttentionDecoder
from tubelet.encoders.vit import VideoViT
from tubelet.models.classifier import VideoClassifier
from tubelet.models.masked import MaskedModel
from tubelet.nodes import Node, path_of
from tubelet.targets.pixels import Pixels
from tubelet.weights.formats.base import Found
from tubelet.weights.source import TASK_PARTS, Source, State
from tubelet.weights.unwrap import table_of, without_wrappers

HEADS = {384: (6, 3), 768: (12, 6), 1024: (16, 8), 1280: (16, 8), 1408: (16, 8)}
"""Encoder width -> heads of the encoder, heads of the decoder."""
EPS = 1e-6
_KEYS = {"encoder_to_decoder.weight": "decoder.project.weight", "mask_token": "decoder.mask_token"}


class Original:
    """A pretraining file becomes a MaskedModel, a fine-tuned one a VideoClassifier, and an encoder alone an encoder."""

    def reads(self, found: Found) -> bool:
        return not found.is_directory

    def read(self, found: Found) -> Source:
        name = str(found.path)
        return source_of(name, table_of(name, found.contents))


def source_of(name: str, weights: State) -> Source:
    """The model of a table of weights, with all that its tensors show."""
    state = without_wrappers(name, weights)
    if not any(key.startswith("encoder.") for key in state):
        state = {key if key.startswith(TASK_PARTS) else f"encoder.{key}": value for key, value in state.items()}
    if "encoder.pos_embed" in state:
        state["encoder.positions"] = state.pop("encoder.pos_embed")
    if any(key.startswith("decoder.") for key in state):
        return Source(name, _pretraining(state), {_KEYS.get(key, key): value for key, value in state.items()})
    if "head.weight" in state:
        return Source(name, _fine_tuned(state), state)
    return Source(name, _encoder(state) | {"preprocess": {"_target_": path_of(Preprocess)}}, state)


def _pretraining(state: State) -> Node:
    width = state["encoder.patch_embed.proj.weight"].shape[0]
    decoder = _blocks(state, "decoder.")
    return {
        "_target_": path_of(MaskedModel),
        "encoder": _encoder(state),
        "decoder": {
            "_target_": path_of(SelfAttentionDecoder),
            "_partial_": True,
            "dim": state["mask_token"].shape[-1] if "mask_token" in state else None,
            "num_heads": HEADS[width][1] if width in HEADS else None,
            "eps": EPS,
            **decoder,
        },
        "target": {"_target_": path_of(Pixels), "_partial_": True},
        "preprocess": {"_target_": path_of(Preprocess)},
    }


def _fine_tuned(state: State) -> Node:
    return {
        "_target_": path_of(VideoClassifier),
        "encoder": _encoder(state),
        "num_classes": state["head.weight"].shape[0],
        "pool": "mean" if "fc_norm.weight" in state else "cls",
        "fc_norm": "fc_norm.weight" in state,
        "fc_norm_eps": EPS,
        "preprocess": {"_target_": path_of(Preprocess)},
    }


def _encoder(state: State) -> Node:
    dim, channels, tubelet, patch, _ = state["encoder.patch_embed.proj.weight"].shape
    published = dim in HEADS
    return {
        "_target_": path_of(VideoViT),
        "image_size": 224 if published else None,
        "num_frames": 16 if published else None,
        "patch_size": patch,
        "tubelet_size": tubelet,
        "in_channels": channels,
        "dim": dim,
        "num_heads": HEADS[dim][0] if published else None,
        "eps": EPS,
        "position": "learned" if "encoder.positions" in state else "sincos",
        "final_norm": "encoder.norm.weight" in state,
        **_blocks(state, "encoder."),
    }


def _blocks(state: State, prefix: str) -> Node:
    """The settings of a stack of blocks, as far as its tensors show them."""
    numbers = {int(key.split(".")[2]) for key in state if key.startswith(f"{prefix}blocks.")}
    first = {key.removeprefix(f"{prefix}blocks.0."): value for key, value in state.items()}
    if not numbers or "mlp.fc1.weight" not in first:
        raise ValueError(f"a VideoMAE checkpoint without '{prefix}blocks.0.mlp.fc1.weight'")
    hidden, dim = first["mlp.fc1.weight"].shape
    return {
        "depth": 1 + max(numbers),
        "mlp_ratio": hidden / dim,
        "bias": "qv" if "attn.q_bias" in first else "qkv" if "attn.qkv.bias" in first else "none",
        "layer_scale": 1e-5 if "gamma_1" in first else 0.0,  # any positive value: the file replaces it
        "cosine_attention": "attn.scale" in first,
    }
