"""Commands of `tubelet bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def step(
    system: Annotated[
        list[str] | None,
        typer.Option(
            help="system to measure: videomae-pretraining (-dual, -cross), videomae, vivit or timesformer; default: all"
        ),
    ] = None,
    size: Annotated[str, typer.Option(help="size of the model: tiny, small, base or large")] = "tiny",
    batch: Annotated[int, typer.Option(help="number of clips per step", min=1)] = 2,
    image_size: Annotated[int, typer.Option(help="frame size in pixels, a multiple of 32")] = 128,
    steps: Annotated[int, typer.Option(help="number of measured steps, of which the median is printed", min=1)] = 7,
    device: Annotated[str, typer.Option(help="device to run on: cpu or cuda")] = "cpu",
    bf16: Annotated[bool, typer.Option("--bf16", help="compute in bfloat16 (autocast)")] = False,
    compiled: Annotated[bool, typer.Option("--compiled", help="time compiled models, too")] = False,
) -> None:
    """Time a full training step of each system, its matrix products and attention alone (the ceiling), and the step of
    the same model of transformers in the same run."""
    import torch

    from tubelet.bench.contenders import SYSTEMS
    from tubelet.bench.step import bench, print_timings

    dtype = torch.bfloat16 if bf16 else torch.float32
    names = system or SYSTEMS
    timings = (bench(name, size, batch, image_size, steps, device, dtype, compiled) for name in names)
    print_timings(timings, compiled)


def data(
    manifest: Annotated[
        Path | None, typer.Argument(help="manifest of your own videos; default: videos rendered for this")
    ] = None,
    reader: Annotated[
        list[str] | None, typer.Option(help="video reader to measure; default: all that are installed")
    ] = None,
    clips: Annotated[int, typer.Option(help="number of clips per round", min=1)] = 8,
    rounds: Annotated[int, typer.Option(help="number of rounds, of which the median is printed", min=1)] = 7,
    repeats: Annotated[int, typer.Option(help="number of clips per decoded video, for the columns R", min=1)] = 4,
    stride: Annotated[int, typer.Option(help="distance of a clip's frames in the files of MANIFEST", min=1)] = 4,
) -> None:
    """Time decoding alone, the whole loading pipeline, and the pipeline with several clips per decoded video; with the
    crops in the loader and on the device."""
    from tempfile import TemporaryDirectory

    from tubelet.bench.data import Files, bench, print_timings, render

    with TemporaryDirectory() as directory:
        files = render(Path(directory)) if manifest is None else {manifest.name: Files(manifest, stride)}
        print_timings(bench(files, reader, clips, rounds, repeats), repeats)


def windows(
    manifest: Annotated[
        Path | None, typer.Argument(help="list of your own videos; default: videos rendered for this")
    ] = None,
    encoder: Annotated[str, typer.Option(help="encoder, for example vit_base")] = "vit_small",
    stride: Annotated[
        int | None, typer.Option(help="sampled frames from one window to the next; default: the window", min=1)
    ] = None,
    frame_stride: Annotated[int, typer.Option(help="frames of the file from one sampled frame to the next", min=1)] = 4,
    device: Annotated[str, typer.Option(help="device to run on: cpu or cuda")] = "cpu",
    workers: Annotated[int, typer.Option(help="number of threads that decode", min=1)] = 2,
    rounds: Annotated[int, typer.Option(help="number of rounds, of which the median is printed", min=1)] = 3,
) -> None:
    """Time `tubelet features --window`: decoding alone, the encoder alone, and everything together."""
    from tempfile import TemporaryDirectory

    from tubelet.bench.data import render
    from tubelet.bench.windows import bench, print_timings

    with TemporaryDirectory() as directory:
        files = (
            {name: each.manifest for name, each in list(render(Path(directory)).items())[:2]}
            if manifest is None
            else {manifest.name: manifest}
        )
        settings = (encoder, stride, frame_stride, device, workers, rounds)
        print_timings({name: bench(path, *settings) for name, path in files.items()}, device)


def loop(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="changes to the run, as train.py takes them: [group=choice] [key=value]")
    ] = None,
    saves: Annotated[int, typer.Option(help="number of checkpoints to save while measuring", min=1)] = 4,
) -> None:
    """Measure what loader, logging, callbacks and checkpoints add to the steps of a real run on demo videos."""
    from tubelet.bench.loop import bench, print_overhead

    print_overhead(bench(overrides or [], saves))


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
