"""`tubelet …`: one thin sub-command each. Heavy imports wait until a command runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from tubelet.config import user_errors

app = typer.Typer(help="Self-supervised pretraining on video.", no_args_is_help=True, pretty_exceptions_enable=False)

Model = Annotated[str, typer.Argument(help="run directory, .ckpt, Hugging Face directory or hub id, or a .pth")]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust", callback=lambda packages: _importable(packages), help="package whose classes MODEL may name"
    ),
]


def _importable(packages: list[str] | None) -> list[str]:
    """A trusted package may lie in the current directory, as it may for train.py."""
    if packages:
        sys.path.insert(0, os.getcwd())
    return packages or []


@app.callback()
def _group() -> None:
    """Self-supervised pretraining on video."""


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def train(context: typer.Context) -> None:
    """Train, validate or test, as train.py does: `tubelet train [experiment=NAME] [group=choice] [key=value]`."""
    from tubelet import launch

    sys.argv = [launch.__file__, *context.args]  # the program that Lightning starts again for every further device
    launch.main()


@app.command()
def reconstruct(
    model: Model,
    video: Annotated[Path, typer.Argument(help="any video file")],
    out: Annotated[Path, typer.Option(help="picture to write: .gif, .png or .mp4")],
    masking: Annotated[str | None, typer.Option(help="tube, random, frame, ... (default: the one of the run)")] = None,
    ratio: Annotated[float | None, typer.Option(help="share of tokens to hide, in (0, 1) (default: the run's)")] = None,
    seed: Annotated[int, typer.Option(help="seed of the mask")] = 0,
    trust: Trust = None,
) -> None:
    """Draw what a masked model fills in: original | masked | reconstructed."""
    from tubelet.evaluate.pictures import check_picture, save_reconstructions
    from tubelet.evaluate.reconstruction import reconstruct_file
    from tubelet.weights.load import load_masking, load_model

    check_picture(out)
    hide = load_masking(model, masking, ratio, trust=trust or [])
    print(save_reconstructions(reconstruct_file(load_model(model, trust=trust or []), video, hide, seed), out))


@app.command()
def predict(
    model: Model,
    videos: Annotated[list[Path], typer.Argument(help="any video files")],
    topk: Annotated[int, typer.Option(help="classes to name")] = 5,
    labels: Annotated[
        Path | None, typer.Option(help="file with one class name per line, for weights without names")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one object per video")] = False,
    trust: Trust = None,
) -> None:
    """Name the classes of videos, each seen in views that cover it."""
    import json

    from tubelet.evaluate.predict import name_classes, predict
    from tubelet.weights.load import load_model

    classifier = load_model(model, trust=trust or [])
    if labels is not None:
        name_classes(classifier, labels)
    for video in videos:
        top = predict(classifier, video, topk)
        if as_json:
            print(json.dumps({"video": str(video), "top": [{"label": a, "probability": p} for a, p in top]}))
        else:
            print(video, *(f"{p:7.2%}  {label}" for label, p in top), sep="\n  ")


@app.command()
def convert(
    model: Model,
    directory: Annotated[Path, typer.Argument(help="to write")],
    num_heads: Annotated[int | None, typer.Option(help="for a .pth of an unpublished width")] = None,
    decoder_num_heads: Annotated[int | None, typer.Option(help="likewise, of the decoder")] = None,
    image_size: Annotated[int | None, typer.Option(help="pixels, for a .pth that was not trained at 224")] = None,
    num_frames: Annotated[int | None, typer.Option(help="for a .pth that was not trained on 16")] = None,
    trust: Trust = None,
) -> None:
    """Write any weights as a Hugging Face directory, which transformers loads."""
    from tubelet.weights.save import convert

    convert(
        model, directory, trust=trust or [], num_heads=num_heads, decoder_num_heads=decoder_num_heads,
        image_size=image_size, num_frames=num_frames,
    )  # fmt: skip
    print(directory)


ManifestFile = Annotated[Path, typer.Argument(help="CSV with a `path` column, or a list of `path label` lines")]
Workers = Annotated[int | None, typer.Option(help="processes; default: one for each core")]
Limit = Annotated[float, typer.Option(help="seconds without a new frame after which a decoder is killed")]
Shard = Annotated[str | None, typer.Option(help="i/n: only the i-th of n parts, i from 0 to n - 1")]


@app.command()
def verify(
    manifest: ManifestFile,
    out: Annotated[Path, typer.Option(help="manifest to write")],
    workers: Workers = None,
    limit: Limit = 60.0,
    shard: Shard = None,
) -> None:
    """Decode every video once: which can be used, how many frames they have, which reader is right. Exit code 1 if one
    cannot be used. Interrupted, it goes on where it was."""
    from tubelet.videos.verify import verify

    raise typer.Exit(1 if verify(manifest, out, workers, limit, shard) else 0)


@app.command()
def merge(
    manifests: Annotated[list[Path], typer.Argument(help="in the order wanted")],
    out: Annotated[Path, typer.Option(help="manifest to write")],
) -> None:
    """Join manifests, such as those of shards: every video once."""
    from tubelet.videos.shards import merge

    print(f"{out}: {len(merge(manifests, out))} videos")


@app.command()
def transcode(
    manifest: ManifestFile,
    directory: Annotated[
        Path, typer.Argument(help="for the new videos and their manifest; not where the originals are")
    ],
    short_side: Annotated[int, typer.Option(help="pixels, even; smaller videos keep their size")] = 256,
    gop: Annotated[int, typer.Option(help="frames from key frame to key frame")] = 16,
    fps: Annotated[float | None, typer.Option(help="frames per second to keep; default: all")] = None,
    workers: Workers = None,
    limit: Limit = 600.0,
    shard: Shard = None,
) -> None:
    """Write every video anew for quick training: H.264, small, key frames close together. Originals are only read. Exit
    code 1 if one could not be read. Interrupted, it goes on where it was."""
    from tubelet.videos.encode import Settings
    from tubelet.videos.transcode import transcode

    settings = Settings(short_side, gop, fps)
    raise typer.Exit(1 if transcode(manifest, directory, settings, workers, limit, shard) else 0)


@app.command()
def report(
    runs: Annotated[Path, typer.Argument(help="a directory with run directories in it, at any depth")],
    out: Annotated[Path | None, typer.Option(help=".html, .png or .csv to write; default: report.html in RUNS")] = None,
) -> None:
    """What became of all runs: what differed between them, how they ended, their curves and pictures."""
    from tubelet.report.page import report

    print(report(runs, out))


bench = typer.Typer(help="What a step and a clip cost on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command("step")
def bench_step(
    system: Annotated[list[str] | None, typer.Option(help="default: all of them")] = None,
    size: Annotated[str, typer.Option(help="tiny, small or base")] = "tiny",
    batch: Annotated[int, typer.Option(help="clips", min=1)] = 2,
    image_size: Annotated[int, typer.Option(help="pixels, a multiple of 16")] = 112,
    steps: Annotated[int, typer.Option(help="counted; the median counts", min=1)] = 7,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    bf16: Annotated[bool, typer.Option("--bf16", help="under autocast")] = False,
) -> None:
    """Forward and backward of each system, beside that of transformers in the same run."""
    import torch

    from tubelet.bench.step import SYSTEMS, bench

    print(f"{'milliseconds a step':22}{'tubelet':>10}{'transformers':>14}{'ratio':>8}")
    for name in system or SYSTEMS:
        timing = bench(name, size, batch, image_size, steps, device, torch.bfloat16 if bf16 else torch.float32)
        theirs = "" if timing.theirs is None else f"{timing.theirs:14.1f}{timing.ours / timing.theirs:8.2f}"
        print(f"{name:22}{timing.ours:10.1f}{theirs}")


@bench.command("data")
def bench_data(
    manifest: Annotated[Path | None, typer.Argument(help="your own videos; default: rendered ones")] = None,
    reader: Annotated[list[str] | None, typer.Option(help="default: all that are installed")] = None,
    clips: Annotated[int, typer.Option(help="of each round", min=1)] = 8,
    rounds: Annotated[int, typer.Option(help="the median counts", min=1)] = 7,
    repeats: Annotated[int, typer.Option(help="clips of every decoded video", min=1)] = 4,
) -> None:
    """Decoding alone, the whole pipeline, and the whole pipeline with several clips of every decoded video."""
    from tempfile import TemporaryDirectory

    from tubelet.bench.data import bench, print_timings, render

    with TemporaryDirectory() as directory:
        manifests = render(Path(directory)) if manifest is None else {manifest.name: manifest}
        print_timings(bench(manifests, reader, clips, rounds, repeats), repeats)


@bench.command("scale")
def bench_scale(
    size: Annotated[list[str] | None, typer.Option(help="base, large or huge; default: all")] = None,
    gpus: Annotated[list[int] | None, typer.Option(help="default: 1, 8 and 64")] = None,
    repeats: Annotated[int, typer.Option(help="clips of every decoded video", min=1)] = 1,
    tflops: Annotated[float, typer.Option(help="a GPU sustains; default: an A100 at 40% of its peak")] = 125.0,
    memory_gb: Annotated[float, typer.Option(help="of a GPU")] = 80.0,
    cores: Annotated[int, typer.Option(help="for each GPU", min=1)] = 12,
    load_ms: Annotated[float, typer.Option(help="of a core for a video, by `bench data`")] = 40.0,
    video_mb: Annotated[float, typer.Option(help="of a video on the disk")] = 0.6,
    disk_mb_s: Annotated[float, typer.Option(help="for each GPU")] = 500.0,
    network_gb_s: Annotated[float, typer.Option(help="for each GPU")] = 25.0,
) -> None:
    """What pretraining VideoMAE asks of each GPU of a cluster, and what breaks first. Counted, not run."""
    from tubelet.bench.scale import RECIPES, Machine, print_needs

    machine = Machine(tflops, memory_gb, cores, load_ms, video_mb, disk_mb_s, network_gb_s)
    print_needs(size or list(RECIPES), gpus or [1, 8, 64], machine, repeats)


@app.command()
def features(
    model: Model,
    manifest: Annotated[Path, typer.Argument(help="CSV with a `path` column, or a list of `path label` lines")],
    out: Annotated[Path, typer.Option(help="file to write: .safetensors")],
    per_token: Annotated[bool, typer.Option(help="every token instead of their mean")] = False,
    batch_size: Annotated[int, typer.Option(help="videos at a time")] = 8,
    num_workers: Annotated[int, typer.Option(help="processes that read videos")] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    trust: Trust = None,
) -> None:
    """Write the features of every video of a manifest. Interrupted, it goes on where it was."""
    from tubelet.evaluate.features import extract_features
    from tubelet.weights.load import load_encoder

    written = extract_features(
        load_encoder(model, trust=trust or []), manifest, out, per_token=per_token, batch_size=batch_size,
        num_workers=num_workers, device=device,
    )  # fmt: skip
    print(written)


@app.command()
def attention(
    model: Model,
    video: Annotated[Path, typer.Argument(help="any video file")],
    out: Annotated[Path, typer.Option(help="film to write: .gif or .mp4")],
    trust: Trust = None,
) -> None:
    """Lay the attention of the last block over the frames: of the class token, or the mean of all queries."""
    from tubelet.evaluate.attention import save_attention
    from tubelet.weights.load import load_encoder

    print(save_attention(load_encoder(model, trust=trust or []), video, out))


def main() -> None:
    """Exit code 2 and one line for a user's mistake."""
    with user_errors():
        app()


if __name__ == "__main__":
    main()
