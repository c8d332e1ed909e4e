"""Fine-tuning by low-rank adapters: Hu et al., LoRA, https://arxiv.org/abs/2106.09685, with the layers of peft.

The encoder's weights W stay as they are. Beside each of them two small matrices are trained, A [rank,in] and B
[out,rank], and the layer computes W x + alpha / rank * B A x. B starts as zeros, so the first step sees the pretrained
model. The head and the encoder's parts that belong to a task (its last norm) are trained as a whole.

A checkpoint holds W, A and B, so that a run is continued exactly. `load_model` joins them (tubelet.weights.adapters).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from torch import nn

from tubelet.data.randomness import key, seeded
from tubelet.encoders.base import Encoder
from tubelet.methods.base import Plan
from tubelet.methods.classification import Classification
from tubelet.models.classifier import VideoClassifier
from tubelet.optim.adamw import AdamW


class Lora(Classification):
    """Args, in addition to those of `Classification`:
    rank: of every adapter; less than the width of its layer.
    alpha: adapters are scaled by alpha / rank.
    layers: names of the linear layers of a block that get an adapter, `["qkv", "proj"]` or `["attn.proj"]`; None: all.

    With `freeze`, the frozen blocks get no adapters.
    """

    def __init__(
        self,
        model: VideoClassifier,
        model_config: dict[str, Any],
        optim: AdamW,
        plan: Plan,
        rank: int = 16,
        alpha: float = 32,
        layers: Sequence[str] | None = None,
        from_weights: bool = True,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        class_balanced: bool = False,
        freeze: int | None = None,
    ) -> None:
        super().__init__(
            model, model_config, optim, plan, from_weights, label_smoothing, mixup, cutmix, class_balanced, freeze
        )
        if alpha <= 0:
            raise ValueError(f"method.alpha must be positive, got {alpha}")
        self.scale = alpha / rank if rank > 0 else 0.0
        chosen = linear_layers(model.encoder, layers, first=freeze or 0)
        narrow = min(min(layer.in_features, layer.out_features) for layer in chosen.values())
        if not 1 <= rank < narrow:
            raise ValueError(f"method.rank must lie between 1 and {narrow - 1}, below the width of a layer, got {rank}")
        with seeded(key(plan.seed, "adapters")):  # a key of its own: the first values depend on nothing else
            add_adapters(model.encoder, list(chosen), rank, alpha)
        for name in model.encoder.task_parts:
            if (part := getattr(model.encoder, name)) is not None:
                part.requires_grad_(True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["adapter_scale"] = self.scale


def linear_layers(encoder: Encoder, names: Sequence[str] | None, first: int = 0) -> dict[str, nn.Linear]:
    """Full name in the encoder -> linear layer, of the blocks from number `first` on. Raises ValueError, listing what
    there is, if a name is not one of them, or if there is none.
    """
    found = dict(_of_blocks(encoder, first))
    if not found:
        raise ValueError(f"method=lora: no block of {type(encoder).__name__} is left that has a linear layer to adapt")
    if names is None:
        return {full: layer for full, (_, layer) in found.items()}
    short = list(dict.fromkeys(name for name, _ in found.values()))
    for wanted in names:
        if not any(_ends_with(name, wanted) for name in short):
            raise ValueError(f"method.layers: no block has a linear layer '{wanted}', there are {', '.join(short)}")
    if not names:
        raise ValueError(f"method.layers is empty, there are {', '.join(short)}")
    return {full: layer for full, (name, layer) in found.items() if any(_ends_with(name, each) for each in names)}


def _of_blocks(encoder: Encoder, first: int) -> Iterator[tuple[str, tuple[str, nn.Linear]]]:
    """Full name in the encoder -> name in its block, and the layer."""
    full = {id(part): name for name, part in encoder.named_modules()}
    for block in list(encoder.layers())[1 + first : -1]:
        for name, part in block.named_modules():
            if type(part) is nn.Linear:
                yield full[id(part)], (name, part)


def _ends_with(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def add_adapters(encoder: Encoder, names: Sequence[str], rank: int, alpha: float) -> None:
    """Put an adapter beside each of the layers, in place. Everything else of the encoder then needs no gradient.

    Raises ValueError if peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model  # takes seconds, and other methods do without
    except ImportError as error:
        raise ValueError("method=lora needs peft: pip install 'tubelet[lora]'") from error
    config = LoraConfig(r=rank, lora_alpha=cast(Any, alpha), target_modules=list(names))  # a float does as well
    inject_adapter_in_model(config, encoder)
