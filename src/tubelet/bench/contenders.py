"""The training steps that `tubelet bench step` times: ours, and the same model's of transformers.

Both have the same sizes, weights and inputs, and both take a full step: forward, backward, and fused AdamW.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from tubelet.bench.subjects import Step, draw_mask, loss_of, peer_loss_of, peer_of
from tubelet.config.compose import compose
from tubelet.layers.stack import blocks_of
from tubelet.layers.switches import switch
from tubelet.masking import MaskGenerator, dual, tube
from tubelet.models.base import VideoModel
from tubelet.models.masked import MaskedModel
from tubelet.nodes import Node, build
from tubelet.weights.formats.huggingface import node_of

PRETRAINING = "videomae-pretraining"
SYSTEMS = (PRETRAINING, f"{PRETRAINING}-dual", f"{PRETRAINING}-cross", "videomae", "vivit", "timesformer")
"""transformers knows neither dual masking nor the cross decoder: these two are compared with its plain pretraining."""

_DECODER = (
    "decoder_hidden_size",
    "decoder_num_hidden_layers",
    "decoder_num_attention_heads",
    "decoder_intermediate_size",
)


def _sizes(dim: int, depth: int, decoder: int, decoder_depth: int) -> Node:
    """A config of transformers; every head is 64 wide."""
    sizes = {"hidden_size": dim, "num_hidden_layers": depth, "num_attention_heads": dim // 64}
    narrow = zip(_DECODER, (decoder, decoder_depth, decoder // 64, 4 * decoder), strict=True)
    return {**sizes, "intermediate_size": 4 * dim, **dict(narrow)}


SIZES: dict[str, Node] = {
    "tiny": _sizes(192, 4, 128, 2),
    "small": _sizes(384, 12, 192, 4),
    "base": _sizes(768, 12, 384, 4),
    "large": _sizes(1024, 24, 512, 12),
}
_FRAMES = {"vivit": 32, "timesformer": 8}


def config_of(system: str, size: str, image_size: int) -> Node:
    """Raises ValueError if the system or size is unknown."""
    if system not in SYSTEMS:
        raise ValueError(f"unknown system '{system}', expected one of {', '.join(SYSTEMS)}")
    if size not in SIZES:
        raise ValueError(f"unknown size '{size}', expected one of {', '.join(SIZES)}")
    narrow = {} if system.startswith(PRETRAINING) else dict.fromkeys(_DECODER)
    sizes = {key: value for key, value in SIZES[size].items() if key not in narrow}
    return {**sizes, "image_size": image_size, "num_frames": _FRAMES.get(system, 16)}


def a_clip(config: Node, batch: int, device: str) -> Tensor:
    side = config["image_size"]
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, config["num_frames"], side, side, generator=generator).to(device)


def ours(system: str, config: Node, clip: Tensor, dtype: torch.dtype, compiled: bool = False) -> Step:
    model = _model(system, config).to(clip.device)
    for block in blocks_of(model):
        switch(block, False, compiled)
    return Step(model, loss_of(model, clip, _answer(model, clip, dual if system.endswith("-dual") else tube)), dtype)


def theirs(system: str, config: Node, clip: Tensor, dtype: torch.dtype, compiled: bool = False) -> Step | None:
    """The same model of transformers; None if transformers is not installed."""
    plain = _model(PRETRAINING if system.startswith(PRETRAINING) else system, config)
    peer = peer_of(plain)
    if peer is None:
        return None
    peer.to(clip.device)
    run = torch.compile(peer) if compiled else peer
    return Step(peer, peer_loss_of(run, clip, _answer(plain, clip, tube)), dtype)


def _model(system: str, config: Node) -> VideoModel:
    """Ours, with seed 0, in training mode."""
    pretraining = system.startswith(PRETRAINING)
    config = {**config, "model_type": PRETRAINING.partition("-")[0] if pretraining else system}
    if pretraining:
        node = node_of({**config, "use_mean_pooling": False}, "pretraining")
        if system.endswith("-cross"):
            sizes = {key: node["decoder"][key] for key in ("dim", "depth", "num_heads")}
            node["decoder"] = {**compose("decoder=cross").decoder, **sizes}
    else:
        node = node_of(config, "classification", num_classes=400)
    torch.manual_seed(0)
    model: VideoModel = build(node)
    return model.train()


def _answer(model: VideoModel, clip: Tensor, masking: MaskGenerator) -> Any:
    """What a step is told besides the clips: their masks, or labels."""
    if isinstance(model, MaskedModel):
        return draw_mask(model, len(clip), partial(masking, ratio=0.9)).to(clip.device)
    return torch.zeros(len(clip), dtype=torch.int64, device=clip.device)
