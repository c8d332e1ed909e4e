"""The training steps that `tubelet bench step` times: ours, and the same model's of transformers.

Both have the same sizes and inputs, and both take a full step: forward, backward, and the update by fused AdamW.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.clip import ClipGrid
from tubelet.config.compose import compose
from tubelet.layers.stack import blocks_of
from tubelet.layers.switches import switch
from tubelet.masking import Mask, dual, tube
from tubelet.nodes import Node, build
from tubelet.optim.adamw import AdamW
from tubelet.weights.formats.huggingface import node_of

PRETRAINING = "videomae-pretraining"
SYSTEMS = (PRETRAINING, f"{PRETRAINING}-dual", f"{PRETRAINING}-cross", "videomae", "vivit", "timesformer")
"""transformers knows neither dual masking nor the cross decoder: these two are compared with its plain pretraining."""

_DECODER = "decoder_hidden_size", "decoder_num_hidden_layers", "decoder_num_attention_heads"
_DECODER += ("decoder_intermediate_size",)


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


@dataclass(frozen=True)
class Contender:
    """A model and its optimizer. `loss()` is one forward pass."""

    model: nn.Module
    loss: Callable[[], Tensor]
    optimizer: torch.optim.Optimizer

    def step(self, device: str, dtype: torch.dtype) -> None:
        self.passes(device, dtype)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def passes(self, device: str, dtype: torch.dtype) -> None:
        """Forward and backward, under autocast unless the type is float32."""
        with torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32):
            loss = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]


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


def ours(system: str, config: Node, clip: Tensor, compiled: bool = False) -> Contender:
    pretraining = system.startswith(PRETRAINING)
    config = {**config, "model_type": PRETRAINING.partition("-")[0] if pretraining else system}
    torch.manual_seed(0)
    if pretraining:
        node = node_of({**config, "use_mean_pooling": False}, "pretraining")
        if system.endswith("-cross"):
            sizes = {key: node["decoder"][key] for key in ("dim", "depth", "num_heads")}
            node["decoder"] = {**compose("decoder=cross").decoder, **sizes}
    else:
        node = node_of(config, "classification", num_classes=400)
    model: Any = build(node).to(clip.device).train()
    for block in blocks_of(model):
        switch(block, False, compiled)
    if pretraining:
        generate = dual if system.endswith("-dual") else tube
        mask = Mask.from_hidden(_hidden(model.grid, len(clip), generate)).to(clip.device)
        loss: Callable[[], Tensor] = lambda: model(clip, mask).loss  # noqa: E731
    else:
        label = torch.zeros(len(clip), dtype=torch.int64, device=clip.device)
        loss = lambda: model.loss(model(clip), label)  # noqa: E731
    return Contender(model, loss, AdamW().build(model))


def theirs(system: str, config: Node, clip: Tensor, compiled: bool = False) -> Contender | None:
    """transformers with its default attention: PyTorch's fused kernel, or its own code where it has no other. None if
    it is not installed.
    """
    if not importlib.util.find_spec("transformers"):
        return None
    import transformers

    pixels = clip.transpose(1, 2).contiguous()
    pretraining = system.startswith(PRETRAINING)
    name = {"vivit": "Vivit", "timesformer": "Timesformer"}.get(system, "VideoMAE")
    make = getattr(transformers, f"{name}Config")
    torch.manual_seed(0)
    if pretraining:
        model: Any = transformers.VideoMAEForPreTraining(make(**config, use_mean_pooling=False))
    else:
        model = getattr(transformers, f"{name}ForVideoClassification")(make(**config, num_labels=400))
    model.to(clip.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    run = torch.compile(model) if compiled else model
    if pretraining:
        grid = ClipGrid(*clip.shape[2:], tubelet=2, patch=16)
        hidden = _hidden(grid, len(clip), tube).to(clip.device)
        return Contender(model, lambda: run(pixels, bool_masked_pos=hidden).loss, optimizer)
    label = torch.zeros(len(clip), dtype=torch.int64, device=clip.device)
    return Contender(model, lambda: F.cross_entropy(run(pixels).logits.float(), label), optimizer)


def _hidden(grid: ClipGrid, batch: int, generate: Callable[..., Tensor]) -> Tensor:
    draw = partial(generate, grid, 0.9, torch.Generator().manual_seed(0))
    return torch.stack([draw() for _ in range(batch)])
