"""Sub-commands of `tubelet bench`, registered in tubelet.cli. Heavy imports wait until a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def memory(
    model: Annotated[
        list[str] | None, typer.Option(help="model to measure, for example pretrain_base_cross; default: all")
    ] = None,
    memory_gb: Annotated[float, typer.Option(help="memory of a GPU in GB, for the largest batch", min=1.0)] = 80.0,
    device: Annotated[str, typer.Option(help="device to run on: cpu or cuda")] = "cpu",
) -> None:
    """Measure the memory of a training step of each model and of transformers', each in a process of its own, and
    compute the largest batch that fits a GPU."""
    from tubelet.bench.memory import print_memory
    from tubelet.bench.subjects import SUBJECTS

    print_memory(model or list(SUBJECTS), memory_gb, device)


def scale(
    size: Annotated[list[str] | None, typer.Option(help="size of the model: base, large or huge; default: all")] = None,
    gpus: Annotated[list[int] | None, typer.Option(help="number of GPUs; default: 1, 8 and 64")] = None,
    repeats: Annotated[int, typer.Option(help="number of clips per decoded video", min=1)] = 1,
    hardware: Annotated[
        str | None, typer.Option(help="hardware whose measured speed counts; default: the first of the table")
    ] = None,
    tflops: Annotated[
        float | None, typer.Option(help="speed that a GPU sustains, in TFLOP/s; default: that of the hardware")
    ] = None,
    memory_gb: Annotated[float, typer.Option(help="memory of a GPU in GB")] = 80.0,
    cores: Annotated[int, typer.Option(help="number of processor cores per GPU", min=1)] = 12,
    load_ms: Annotated[
        float, typer.Option(help="milliseconds of one core to load a video, as `tubelet bench data` measures")
    ] = 40.0,
    video_mb: Annotated[float, typer.Option(help="size of a video on the disk in MB")] = 0.6,
    disk_mb_s: Annotated[float, typer.Option(help="reading speed per GPU in MB/s")] = 500.0,
    network_gb_s: Annotated[float, typer.Option(help="network speed per GPU in GB/s")] = 25.0,
    measure: Annotated[
        bool, typer.Option("--measure", help="instead, measure how cost grows with frames, resolution, ratio and so on")
    ] = False,
    out: Annotated[Path, typer.Option(help="with --measure: picture to write, ending in .png")] = Path("scale.png"),
    device: Annotated[str, typer.Option(help="with --measure: device to run on, cpu or cuda")] = "cpu",
    encoder: Annotated[str, typer.Option(help="with --measure: encoder, for example vit_small")] = "vit_small",
) -> None:
    """Compute what pretraining VideoMAE needs per GPU of a cluster, which limit is reached first, and the hours of each
    published recipe. Nothing is trained. With --measure: measure how the cost of a step grows, and draw it."""
    if measure:
        from tubelet.bench.growth import measure_growth

        print(measure_growth(out, device, encoder))
        return
    from tubelet.bench.recipes import print_recipes
    from tubelet.bench.scale import RECIPES, Machine, print_needs
    from tubelet.bench.speeds import speed_of

    if tflops is not None and tflops <= 0:
        raise ValueError(f"--tflops must be positive, got {tflops:g}")
    line = speed_of(hardware, "any")
    if tflops is None:
        print(f"{line.hardware}: {line.tflops:g} TFLOP/s ({line.source})")
    machine = Machine(tflops or line.tflops, memory_gb, cores, load_ms, video_mb, disk_mb_s, network_gb_s)
    counts = gpus or [1, 8, 64]
    print_needs(size or list(RECIPES), counts, machine, repeats)
    if not size:
        print_recipes(hardware, tflops, counts)
