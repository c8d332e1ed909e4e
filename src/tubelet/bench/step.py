"""The time of one training step (forward and backward) of our models and of transformers, in the same run.

Both have the same sizes and inputs. Their steps alternate, after a warm-up that is not counted. The host waits for the
device before and after each step. The median is reported. If transformers is not installed, only ours are measured.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from tubelet.clip import ClipGrid
from tubelet.masking import Mask, tube
from tubelet.models.classifier import VideoClassifier
from tubelet.models.masked import MaskedModel
from tubelet.nodes import Node, build
from tubelet.weights.formats.huggingface import node_of

SYSTEMS = ("videomae-pretraining", "videomae", "vivit", "timesformer")
SIZES: dict[str, Node] = {
    "tiny": {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 768},
    "small": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
_FRAMES = {"videomae-pretraining": 16, "videomae": 16, "vivit": 32, "timesformer": 8}
_WARM_UP = 3


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one step; `theirs` is None without transformers."""

    system: str
    ours: float
    theirs: float | None


def bench(
    system: str,
    size: str = "base",
    batch: int = 8,
    image_size: int = 224,
    steps: int = 10,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Timing:
    """Time `steps` steps of a system. Raises ValueError if the system or size is unknown."""
    if system not in SYSTEMS:
        raise ValueError(f"unknown system '{system}', expected one of {', '.join(SYSTEMS)}")
    if size not in SIZES:
        raise ValueError(f"unknown size '{size}', expected one of {', '.join(SIZES)}")
    config = {**SIZES[size], "image_size": image_size, "num_frames": _FRAMES[system]}
    torch.manual_seed(0)
    clip = torch.randn(batch, 3, config["num_frames"], image_size, image_size, device=device)
    contenders = [_ours(system, config, clip)]
    if importlib.util.find_spec("transformers"):
        contenders.append(_theirs(system, config, clip))
    times: list[list[float]] = [[] for _ in contenders]
    for step in range(_WARM_UP + steps):
        for forward, spent in zip(contenders, times, strict=True):
            seconds = _time(forward, device, dtype)
            if step >= _WARM_UP:
                spent.append(1000 * seconds)
    return Timing(system, median(times[0]), median(times[1]) if len(times) > 1 else None)


def _ours(system: str, config: Node, clip: Tensor) -> Callable[[], Tensor]:
    config = {**config, "model_type": system.removesuffix("-pretraining")}
    if system.endswith("-pretraining"):
        mae: MaskedModel = build(node_of({**config, "use_mean_pooling": False}, "pretraining")).to(clip.device)
        mask = Mask.from_hidden(_hidden(mae.grid, len(clip))).to(clip.device)
        return lambda: mae(clip, mask).loss
    model: VideoClassifier = build(node_of(config, "classification", num_classes=400)).to(clip.device)
    label = torch.zeros(len(clip), dtype=torch.int64, device=clip.device)
    return lambda: model.loss(model(clip), label)


def _theirs(system: str, config: Node, clip: Tensor) -> Callable[[], Tensor]:
    import transformers

    pixels = clip.transpose(1, 2).contiguous()
    name = {"videomae": "VideoMAE", "vivit": "Vivit", "timesformer": "Timesformer"}[system.removesuffix("-pretraining")]
    make = getattr(transformers, f"{name}Config")
    if system.endswith("-pretraining"):
        mae: Any = transformers.VideoMAEForPreTraining(make(**config, use_mean_pooling=False))
        mae.to(clip.device)
        frames, height, width = clip.shape[2:]
        hidden = _hidden(ClipGrid(frames, height, width, tubelet=2, patch=16), len(clip)).to(clip.device)
        return lambda: mae(pixels, bool_masked_pos=hidden).loss
    model: Any = getattr(transformers, f"{name}ForVideoClassification")(make(**config, num_labels=400)).to(clip.device)
    label = torch.zeros(len(clip), dtype=torch.int64, device=clip.device)
    return lambda: torch.nn.functional.cross_entropy(model(pixels).logits.float(), label)


def _hidden(grid: ClipGrid, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.stack([tube(grid, 0.9, generator) for _ in range(batch)])


def _time(forward: Callable[[], Tensor], device: str, dtype: torch.dtype) -> float:
    """Seconds of one forward and backward."""
    _wait(device)
    start = perf_counter()
    with torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32):
        loss = forward()
    loss.backward()
    _wait(device)
    return perf_counter() - start


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
