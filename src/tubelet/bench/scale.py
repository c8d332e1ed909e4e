"""What a recipe asks of a cluster, by arithmetic: nothing is trained, and no GPU is needed.

Operations are counted and saved activations weighed by running one forward and backward on fake tensors, which have a
shape and no memory: the model's own code decides, not a formula. What the machine brings (speed of a GPU, milliseconds
to load a video) is given, best as measured by `tubelet bench step` and `tubelet bench data`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from tubelet.config.compose import build_model, compose
from tubelet.data.randomness import generator
from tubelet.masking import Mask, MaskGenerator, tube
from tubelet.models.masked import MaskedModel
from tubelet.runtime.lightning_internals import tensors_without_memory

RECIPES = ("base", "large", "huge")
"""Of conf/experiment/pretrain_k400_*.yaml."""


@dataclass(frozen=True)
class Cost:
    """One training clip: floating-point operations forward and backward, bytes saved in between under bf16 autocast."""

    parameters: int
    flops: float
    activations: int


@dataclass(frozen=True)
class Machine:
    """What one GPU has at hand.

    tflops      it sustains on this model, not its peak
    memory_gb   of the GPU
    cores       for loading
    load_ms     of a core for one video with all its views
    video_mb    read for one video
    disk_mb_s, network_gb_s    its share of reading, and of sending gradients
    """

    tflops: float = 125.0
    memory_gb: float = 80.0
    cores: int = 12
    load_ms: float = 40.0
    video_mb: float = 0.6
    disk_mb_s: float = 500.0
    network_gb_s: float = 25.0


@dataclass(frozen=True)
class Need:
    """What each GPU needs; `memory_gb` holds `clips` at once, `least_gb` one, with all state sharded over the GPUs."""

    clips: float
    step_s: float
    clips_per_s: float
    cores: float
    disk_mb_s: float
    network_gb_s: float
    memory_gb: float
    least_gb: float

    def breaks_first(self, machine: Machine) -> str:
        """The need that is largest beside what there is, and how much of it that is."""
        shares = {
            "decoding": self.cores / machine.cores,
            "memory": self.memory_gb / machine.memory_gb,
            "disk": self.disk_mb_s / machine.disk_mb_s,
            "network": self.network_gb_s / machine.network_gb_s,
        }
        name = max(shares, key=lambda key: shares[key])
        return f"{name} {shares[name]:.0%}"


def pretraining(size: str) -> tuple[MaskedModel, int]:
    """VideoMAE at 16 x 224 x 224, and its global batch. Raises ValueError for an unknown size."""
    if size not in RECIPES:
        raise ValueError(f"unknown size '{size}', expected one of {', '.join(RECIPES)}")
    experiment = f"experiment=pretrain_k400_{size}"
    return build_model(experiment), compose(experiment).data.batch_size


def cost(model: MaskedModel, masking: MaskGenerator | None = None, batch: int = 2) -> Cost:
    """Counts one training step on `batch` clips; the model itself is not run and not changed. Default: tube 0.9."""
    grid, masking = model.grid, masking or partial(tube, ratio=0.9)
    mask = Mask.from_hidden(torch.stack([masking(grid, generator=generator(i)) for i in range(batch)]))
    mode = tensors_without_memory()
    fakes = {name: mode.from_tensor(p).requires_grad_() for name, p in model.named_parameters()}
    fakes |= {name: mode.from_tensor(b) for name, b in model.named_buffers()}
    weights = {tensor.untyped_storage() for tensor in fakes.values()}
    saved: dict[Any, int] = {}

    def weigh(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage() not in weights:
            saved[tensor.untyped_storage()] = tensor.untyped_storage().nbytes()
        return tensor

    with mode, FlopCounterMode(display=False) as flops:
        clip = torch.empty(batch, model.encoder.in_channels, grid.frames, grid.height, grid.width)
        with saved_tensors_hooks(weigh, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
            loss = torch.func.functional_call(model, fakes, (clip, mask)).loss
        loss.backward()
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, flops.get_total_flops() / batch, sum(saved.values()) // batch)


def need(cost: Cost, machine: Machine, gpus: int, batch_size: int, repeats: int = 1) -> Need:
    """Of each of `gpus` that share steps of `batch_size` videos in `repeats` views.

    AdamW in float32 keeps 16 bytes a parameter: weight, gradient, two moments. A ring all-reduce sends every gradient
    twice, here within the time of the backward, two thirds of a step.
    """
    clips = batch_size * repeats / gpus
    step = clips * cost.flops / (machine.tflops * 1e12)
    videos_per_s = batch_size / gpus / step
    gradients = 2 * (gpus - 1) / gpus * 4 * cost.parameters / (step * 2 / 3)
    state = 16 * cost.parameters
    return Need(
        clips=clips,
        step_s=step,
        clips_per_s=clips / step,
        cores=videos_per_s * machine.load_ms / 1e3,
        disk_mb_s=videos_per_s * machine.video_mb,
        network_gb_s=gradients / 1e9,
        memory_gb=(state + clips * cost.activations) / 1e9,
        least_gb=(state / gpus + cost.activations) / 1e9,
    )


def print_needs(sizes: list[str], gpus: list[int], machine: Machine, repeats: int = 1) -> None:
    """A table for the recipes' own batches."""
    for size in sizes:
        model, batch_size = pretraining(size)
        each = cost(model)
        title = f"{size}: {each.parameters / 1e6:.0f} M parameters, {each.flops / 1e9:.0f} GFLOP and"
        title += f" {each.activations / 1e6:.0f} MB of activations a clip; batch {batch_size} x {repeats}"
        table = Table(title=title, title_justify="left")
        for name in ("GPUs", "clips", "step s", "clips/s", "cores", "MB/s disk", "GB/s network", "GB", "GB least"):
            table.add_column(name, justify="right")
        table.add_column("breaks first")
        for count in gpus:
            row = need(each, machine, count, batch_size, repeats)
            figures = (row.clips, row.step_s, row.clips_per_s, row.cores, row.disk_mb_s, row.network_gb_s)
            cells = [f"{figure:.3g}" for figure in (*figures, row.memory_gb, row.least_gb)]
            table.add_row(str(count), *cells, row.breaks_first(machine))
        Console().print(table)
