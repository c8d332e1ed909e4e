"""What the benches measure: models from the names of the command line, and transformers' models of the same sizes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tubelet.config.compose import build_model
from tubelet.data.randomness import generator
from tubelet.layers.stack import blocks_of
from tubelet.masking import Mask, MaskGenerator, dual, tube
from tubelet.methods.freezing import freeze_blocks
from tubelet.methods.lora import add_adapters, linear_layers
from tubelet.models.base import VideoModel
from tubelet.models.masked import MaskedModel
from tubelet.weights.formats.huggingface import HuggingFace

# without drop path and dropout, which transformers' models do not have
_CLASSIFY = ("experiment=finetune_k400_base", "data.num_classes=400", "encoder.drop_path=0.0", "model.head_dropout=0.0")
_CLASS_TOKEN = ("model.pool=cls", "model.norm_after_pool=false")

SUBJECTS: dict[str, tuple[str, ...]] = {
    **{
        f"pretrain_{size}{suffix}": (f"experiment=pretrain_k400_{size}", *more)
        for size in ("small", "base", "large")
        for suffix, more in (("", ()), ("_dual", ("masking=dual",)), ("_cross", ("decoder=cross",)))
    },
    **{f"finetune_base{suffix}": _CLASSIFY for suffix in ("", "_frozen", "_lora")},
    "finetune_vivit": (*_CLASSIFY, "encoder=vivit_base", "preprocess=vivit", *_CLASS_TOKEN),
    "finetune_timesformer": (*_CLASSIFY, "encoder=timesformer_base", "preprocess=timesformer", *_CLASS_TOKEN),
}
"""Name -> what the command line says for it. Of `_frozen` two thirds of the blocks are (`method.freeze=8`), `_lora` has
adapters of rank 16 beside all layers (`method=lora`).
"""
OURS = ("_dual", "_frozen", "_lora")
"""Endings of the names of what transformers' models do not do by themselves."""

TINY = (
    "encoder.dim=48", "encoder.depth=2", "encoder.num_heads=3", "encoder.image_size=32", "encoder.patch_size=8",
    "encoder.num_frames=8",
)  # fmt: skip
"""Makes any of them small enough to try a program out."""


def check_subjects(names: list[str]) -> None:
    """Raises ValueError for a name that does not exist."""
    for name in names:
        if name not in SUBJECTS:
            raise ValueError(f"unknown model '{name}', expected one of {', '.join(SUBJECTS)}")


def check_device(device: str) -> None:
    """Raises ValueError for a device that does not exist here."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f"unknown device '{device}', expected cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no GPU here")


def build_subject(name: str, *overrides: str, tiny: bool = False) -> VideoModel:
    """One of `SUBJECTS` with seed 0, on the CPU, as it is in training."""
    check_subjects([name])
    torch.manual_seed(0)
    model = build_model(*SUBJECTS[name], *(TINY if tiny else ()), *overrides).train()
    if name.endswith("_frozen"):
        for layer in freeze_blocks(model, len(blocks_of(model)) * 2 // 3):
            layer.eval()
    if name.endswith("_lora"):
        add_adapters(model.encoder, list(linear_layers(model.encoder, None)), rank=16, alpha=32)
    return model


def draw_mask(model: VideoModel, clips: int, masking: MaskGenerator) -> Mask:
    """Masks of `clips` clips."""
    return Mask.from_hidden(torch.stack([masking(model.grid, generator=generator(i)) for i in range(clips)]))


def inputs_of(name: str, model: VideoModel, clips: int, device: str) -> tuple[Tensor, Any]:
    """A random batch for a subject: clip float32 [B,C,T,H,W], and its mask or its labels [B]."""
    grid = model.grid
    shape = (clips, model.encoder.in_channels, grid.frames, grid.height, grid.width)
    clip = torch.randn(shape, generator=torch.Generator(device).manual_seed(0), device=device)
    if isinstance(model, MaskedModel):
        masking = dual if name.endswith("_dual") else tube
        return clip, draw_mask(model, clips, partial(masking, ratio=0.9)).to(device)
    return clip, torch.arange(clips, device=device) % 400


def loss_of(model: Any, clip: Tensor, answer: Any) -> Callable[[], Tensor]:
    """The forward pass of a step of ours."""
    if isinstance(model, MaskedModel):
        return lambda: model(clip, answer).loss
    return lambda: model.loss(model(clip), answer)


class StepLoss(nn.Module):
    """A model whose output is the loss of a training step: what tubelet.runtime.cost counts."""

    def __init__(self, model: VideoModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, clip: Tensor, answer: Any) -> Tensor:
        return loss_of(self.model, clip, answer)()


def peer_of(model: VideoModel) -> nn.Module | None:
    """transformers' model of the same sizes and weights, with the fastest attention it offers; None without
    transformers, or if it has no such model (dual masking is not a matter of the model).
    """
    if importlib.util.find_spec("transformers") is None:
        return None
    import transformers

    try:
        files = HuggingFace().write(model)
    except ValueError:  # a decoder that it does not have
        return None
    config = transformers.AutoConfig.for_model(**files.config)
    peer: nn.Module = getattr(transformers, files.config["architectures"][0])(config)
    peer.load_state_dict(files.state, strict=False)  # transformers computes its position tables itself
    return peer.train()


def peer_loss_of(peer: Any, clip: Tensor, answer: Any) -> Callable[[], Tensor]:
    """The forward pass of a step of transformers', on the same clips, masks and labels."""
    pixels = clip.transpose(1, 2).contiguous()
    if not isinstance(answer, Mask):
        return lambda: torch.nn.functional.cross_entropy(peer(pixels).logits.float(), answer)
    tokens = answer.visible.shape[1] + answer.hidden.shape[1]
    hidden = torch.ones(len(pixels), tokens, dtype=torch.bool, device=pixels.device)
    hidden.scatter_(1, answer.visible, False)
    return lambda: peer(pixels, bool_masked_pos=hidden).loss


class Step:
    """A whole training step: forward, backward and fused AdamW; bf16 autocast unless `dtype` is float32."""

    def __init__(self, model: nn.Module, loss: Callable[[], Tensor], dtype: torch.dtype = torch.bfloat16) -> None:
        first = next(model.parameters())
        self.model = model
        self.loss, self.device, self.dtype = loss, first.device.type, dtype
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # capturable: so that a CUDA graph can hold the step
        self.optimizer = torch.optim.AdamW(trained, 1e-4, fused=True, capturable=self.device == "cuda")

    def forward(self) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return self.loss()

    def passes(self) -> Tensor:
        """Forward and backward. Returns the loss, detached."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.forward()
        loss.backward()
        return loss.detach()

    def __call__(self) -> Tensor:
        """Returns the loss, detached."""
        loss = self.passes()
        self.optimizer.step()
        return loss
