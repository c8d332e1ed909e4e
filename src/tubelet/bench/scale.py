"""The needs of a recipe on a cluster, computed: nothing is trained, and no GPU is needed.

tubelet.runtime.cost counts operations and bytes of one training step. The properties of the machine (speed of a GPU,
milliseconds to load a video) are inputs: the speed comes from the measured table (tubelet.bench.speeds), the rest from
`tubelet bench data`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tubelet.bench import WIDTH
from tubelet.bench.subjects import StepLoss, draw_mask
from tubelet.config.compose import build_model, compose
from tubelet.masking import MaskGenerator, tube
from tubelet.models.base import VideoModel
from tubelet.models.masked import MaskedModel
from tubelet.runtime.cost import Cost, cost_of

RECIPES = ("base", "large", "huge")
"""Sizes for which there is a conf/experiment/pretrain_k400_*.yaml."""


@dataclass(frozen=True)
class Machine:
    """What each GPU has.

    tflops          speed of the GPU on this model, in 10^12 operations per second; not its peak
    memory_gb       memory of the GPU
    cores           processor cores for loading, per GPU
    load_ms         milliseconds of one core to load one video with all its views
    video_mb        size of one video on the disk
    disk_mb_s       reading speed per GPU
    network_gb_s    speed of sending gradients per GPU
    """

    tflops: float
    memory_gb: float = 80.0
    cores: int = 12
    load_ms: float = 40.0
    video_mb: float = 0.6
    disk_mb_s: float = 500.0
    network_gb_s: float = 25.0


@dataclass(frozen=True)
class Need:
    """What each GPU needs. `memory_gb` is for `clips` at once; `least_gb` is for one clip, with all state sharded over
    the GPUs.
    """

    clips: float
    step_s: float
    clips_per_s: float
    cores: float
    disk_mb_s: float
    network_gb_s: float
    memory_gb: float
    least_gb: float

    def breaks_first(self, machine: Machine) -> str:
        """The need that is largest relative to what the machine has, and this ratio in percent."""
        shares = {
            "decoding": self.cores / machine.cores,
            "memory": self.memory_gb / machine.memory_gb,
            "disk": self.disk_mb_s / machine.disk_mb_s,
            "network": self.network_gb_s / machine.network_gb_s,
        }
        name = max(shares, key=lambda key: shares[key])
        return f"{name} {shares[name]:.0%}"


def pretraining(size: str) -> tuple[MaskedModel, int]:
    """VideoMAE at 16 x 224 x 224, and the global batch of its recipe. Raises ValueError for an unknown size."""
    if size not in RECIPES:
        raise ValueError(f"unknown size '{size}', expected one of {', '.join(RECIPES)}")
    experiment = f"experiment=pretrain_k400_{size}"
    with torch.device("meta"):  # sizes are enough
        return build_model(experiment), compose(experiment).data.batch_size


def cost(model: VideoModel, masking: MaskGenerator | None = None) -> Cost:
    """The cost per clip, counted on training steps of one and of two clips: the difference of what they save is what a
    clip adds, without the bf16 copies of the weights. The model itself is not changed, and may be on the device "meta".
    A masked model: the default masking is tube with ratio 0.9.
    """
    one, two = (_cost_of(model, masking or partial(tube, ratio=0.9), clips) for clips in (1, 2))
    return replace(two, activations=2 * two.activations - one.activations)


def _cost_of(model: VideoModel, masking: MaskGenerator, clips: int) -> Cost:
    grid = model.grid
    shape = (clips, model.encoder.in_channels, grid.frames, grid.height, grid.width)
    masked = isinstance(model, MaskedModel)
    answer: Any = draw_mask(model, clips, masking) if masked else torch.zeros(clips, dtype=torch.int64)
    return cost_of(StepLoss(model), lambda: (torch.empty(shape), answer), clips)


def need(cost: Cost, machine: Machine, gpus: int, batch_size: int, repeats: int = 1) -> Need:
    """The needs of each GPU, if `gpus` of them share steps of `batch_size` videos with `repeats` views each.

    AdamW in float32 keeps 16 bytes per parameter: weight, gradient, two moments. A ring all-reduce sends every gradient
    twice. We assume that it overlaps with the backward pass, two thirds of a step.
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
    """Print a table for the batch of each recipe."""
    for size in sizes:
        model, batch_size = pretraining(size)
        each = cost(model.train())
        title = f"{size}: {each.parameters / 1e6:.0f} M parameters, {each.flops / 1e9:.0f} GFLOP and"
        title += f" {each.activations / 1e6:.0f} MB of activations per clip; batch {batch_size} x {repeats}"
        table = Table(title=title, title_justify="left")
        for name in ("GPUs", "clips", "step s", "clips/s", "cores", "MB/s disk", "GB/s network", "GB", "GB least"):
            table.add_column(name, justify="right")
        table.add_column("breaks first")
        for count in gpus:
            row = need(each, machine, count, batch_size, repeats)
            figures = (row.clips, row.step_s, row.clips_per_s, row.cores, row.disk_mb_s, row.network_gb_s)
            cells = [f"{figure:.3g}" for figure in (*figures, row.memory_gb, row.least_gb)]
            table.add_row(str(count), *cells, row.breaks_first(machine))
        Console(width=WIDTH).print(table)
