"""Sub-commands of `tubelet bench`, registered in tubelet.cli. Heavy imports wait until a command runs."""

from __future__ import annotations

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
    from tubelet.bench.subjects import SUBJECTS, check_subjects

    check_subjects(model or [])
    print_memory(model or list(SUBJECTS), memory_gb, device)


def scale(
    size: Annotated[list[str] | None, typer.Option(help="size of the model: base, large or huge; default: all")] = None,
    gpus: Annotated[list[int] | None, typer.Option(help="number of GPUs; default: 1, 8 and 64")] = None,
    repeats: Annotated[int, typer.Option(help="number of clips per decoded video", min=1)] = 1,
    tflops: Annotated[
        float, typer.Option(help="speed that a GPU sustains, in TFLOP/s; default: an A100 at 40% of its peak")
    ] = 125.0,
    memory_gb: Annotated[float, typer.Option(help="memory of a GPU in GB")] = 80.0,
    cores: Annotated[int, typer.Option(help="number of processor cores per GPU", min=1)] = 12,
    load_ms: Annotated[
        float, typer.Option(help="milliseconds of one core to load a video, as `tubelet bench data` measures")
    ] = 40.0,
    video_mb: Annotated[float, typer.Option(help="size of a video on the disk in MB")] = 0.6,
    disk_mb_s: Annotated[float, typer.Option(help="reading speed per GPU in MB/s")] = 500.0,
    network_gb_s: Annotated[float, typer.Option(help="network speed per GPU in GB/s")] = 25.0,
) -> None:
    """Compute what pretraining VideoMAE needs per GPU of a cluster, and which limit is reached first. Nothing is
    trained."""
    from tubelet.bench.scale import RECIPES, Machine, print_needs

    machine = Machine(tflops, memory_gb, cores, load_ms, video_mb, disk_mb_s, network_gb_s)
    print_needs(size or list(RECIPES), gpus or [1, 8, 64], machine, repeats)
