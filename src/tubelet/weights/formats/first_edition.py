"""Checkpoints of tubelet 0.1, where one class, MaskedAutoencoder, held the settings of decoder and target."""

from __future__ import annotations

from dataclasses import replace

from tubelet.decoders.self_attention import SelfAttentionDecoder
from tubelet.models.masked import MaskedModel
from tubelet.nodes import Node, path_of
from tubelet.targets.pixels import Pixels
from tubelet.weights.source import Source, State

_TARGET = "tubelet.models.mae.MaskedAutoencoder"
_DECODER = {
    "decoder_dim": "dim",
    "decoder_depth": "depth",
    "decoder_heads": "num_heads",
    "decoder_mlp_ratio": "mlp_ratio",
    "decoder_bias": "bias",
    "decoder_position": "position",
    "decoder_norm_eps": "norm_eps",
    **{name: name for name in ("act", "eps", "dropout", "attention_dropout", "layer_scale", "cosine_attention")},
}
_KEYS = {"encoder_to_decoder.weight": "decoder.project.weight", "mask_token": "decoder.mask_token"}


def upgraded(source: Source) -> Source:
    """The same model in the form of this version of tubelet. Any other source is returned unchanged."""
    if source.node.get("_target_") != _TARGET:
        return source
    old = source.node
    node: Node = {
        "_target_": path_of(MaskedModel),
        "encoder": old["encoder"],
        "decoder": {
            "_target_": path_of(SelfAttentionDecoder),
            "_partial_": True,
            **{new: old[name] for name, new in _DECODER.items() if name in old},
        },
        "target": {"_target_": path_of(Pixels), "_partial_": True, "normalise": old.get("norm_pix_loss", True)},
    }
    if "preprocess" in old:
        node["preprocess"] = old["preprocess"]
    return replace(source, node=node, state=renamed(source.state))


def renamed(state: State, prefix: str = "") -> State:
    """The weights of a model under today's names; those of any other model stay as they are."""
    names = {f"{prefix}{old}": f"{prefix}{new}" for old, new in _KEYS.items()}
    return {names.get(key, key): value for key, value in state.items()}
