"""The command line `tubelet`: one thin function per sub-command. Heavy imports wait until a command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tubelet.bench import commands
from tubelet.config import user_errors
from tubelet.config.options import Device, Model, Preprocess, Trust, settings

app = typer.Typer(help="Self-supervised pretraining on video.", no_args_is_help=True, pretty_exceptions_enable=False)


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

    sys.argv = [launch.__file__, *context.args]  # Lightning starts this program again for every other device
    launch.main()


@app.command()
def reconstruct(
    model: Model,
    video: Annotated[Path, typer.Argument(help="any video file")],
    out: Annotated[Path, typer.Option(help="picture to write, ending in .gif, .png or .mp4")],
    masking: Annotated[
        str | None, typer.Option(help="masking to use: tube, random, frame, ...; default: that of the run")
    ] = None,
    ratio: Annotated[
        float | None, typer.Option(help="mask ratio, the share of tokens to hide, in (0, 1); default: that of the run")
    ] = None,
    seed: Annotated[int, typer.Option(help="seed from which the mask is drawn")] = 0,
    device: Device = "cpu",
    preprocess: Preprocess = None,
    trust: Trust = None,
) -> None:
    """Draw a video, the part of it that a masked model sees, and what the model reconstructs."""
    from tubelet.evaluate.device import on_device
    from tubelet.evaluate.pictures import check_picture, save_reconstructions
    from tubelet.evaluate.reconstruction import reconstruct_file
    from tubelet.weights.load import load_masking, load_model

    check_picture(out)
    hide = load_masking(model, masking, ratio, trust=trust or [])
    loaded = on_device(load_model(model, trust=trust or [], preprocess=settings(preprocess)), device)
    print(save_reconstructions(reconstruct_file(loaded, video, hide, seed), out))


@app.command()
def predict(
    model: Model,
    videos: Annotated[list[Path], typer.Argument(help="any video files")],
    topk: Annotated[int, typer.Option(help="number of classes to print per video, the most probable ones")] = 5,
    labels: Annotated[
        Path | None, typer.Option(help="file with one class name per line, for weights without class names")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print one JSON object per video, each on its own line")
    ] = False,
    device: Device = "cpu",
    preprocess: Preprocess = None,
    trust: Trust = None,
) -> None:
    """Predict the classes of videos, or the numbers of a regression. They are averaged over views that cover the whole
    video.
    """
    import json

    from tubelet.data.reader import VideoError
    from tubelet.evaluate.device import on_device
    from tubelet.evaluate.predict import name_classes, predict
    from tubelet.weights.load import load_model

    classifier = on_device(load_model(model, trust=trust or [], preprocess=settings(preprocess)), device)
    if labels is not None:
        name_classes(classifier, labels)
    failed, numbers = 0, getattr(classifier, "problem", None) == "regression"
    for video in videos:
        try:
            top = predict(classifier, video, topk)
        except VideoError as error:  # the others are still predicted
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        if as_json and numbers:
            print(json.dumps({"video": str(video), "values": dict(top)}))
        elif as_json:
            print(json.dumps({"video": str(video), "top": [{"label": a, "probability": p} for a, p in top]}))
        else:
            shown = (f"{score:9.4g}" if numbers else f"{score:7.2%}" for _, score in top)
            print(video, *(f"{score}  {name}" for score, (name, _) in zip(shown, top, strict=True)), sep="\n  ")
    if failed:
        raise typer.Exit(1 if failed < len(videos) else 2)


@app.command()
def convert(
    model: Model,
    directory: Annotated[Path, typer.Argument(help="directory to write")],
    num_heads: Annotated[
        int | None, typer.Option(help="attention heads of the encoder, for a .pth of a width that is not published")
    ] = None,
    decoder_num_heads: Annotated[
        int | None, typer.Option(help="attention heads of the decoder, for a .pth of a width that is not published")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="frame size in pixels, for a .pth that was not trained at 224 pixels")
    ] = None,
    num_frames: Annotated[
        int | None, typer.Option(help="number of frames per clip, for a .pth that was not trained on 16 frames")
    ] = None,
    preprocess: Preprocess = None,
    trust: Trust = None,
) -> None:
    """Convert any weights to a Hugging Face directory, which transformers can load."""
    from tubelet.weights.save import convert

    convert(
        model, directory, trust=trust or [], num_heads=num_heads, decoder_num_heads=decoder_num_heads,
        image_size=image_size, num_frames=num_frames, preprocess=settings(preprocess),
    )  # fmt: skip
    print(directory)


ManifestFile = Annotated[
    Path, typer.Argument(help="list of videos: a CSV with a `path` column, or a file of `path label` lines")
]
Workers = Annotated[int | None, typer.Option(help="number of processes; default: one per core")]
Limit = Annotated[float, typer.Option(help="seconds without a new frame after which a decoder is killed")]
Shard = Annotated[
    str | None, typer.Option(help="i/n: work on part i of n parts of the list, i from 0 to n - 1; default: all")
]


@app.command()
def verify(
    manifest: ManifestFile,
    out: Annotated[Path, typer.Option(help="manifest to write, with the usable videos")],
    workers: Workers = None,
    limit: Limit = 60.0,
    shard: Shard = None,
) -> None:
    """Decode every video once, to find which can be used, how many frames they have, and which reader is right for
    them. The exit code is 1 if a video cannot be used. After an interruption, the same command continues."""
    from tubelet.videos.verify import verify

    raise typer.Exit(1 if verify(manifest, out, workers, limit, shard) else 0)


@app.command()
def merge(
    manifests: Annotated[list[Path], typer.Argument(help="manifests to join, in the order of the result")],
    out: Annotated[Path, typer.Option(help="manifest to write")],
) -> None:
    """Join manifests, for example those of shards. Every video is listed once."""
    from tubelet.videos.shards import merge

    print(f"{out}: {len(merge(manifests, out))} videos")


@app.command()
def transcode(
    manifest: ManifestFile,
    directory: Annotated[
        Path, typer.Argument(help="directory for the new videos and their manifest; it must not hold the originals")
    ],
    short_side: Annotated[
        int, typer.Option(help="short side of the new videos in pixels, even; smaller videos keep their size")
    ] = 256,
    gop: Annotated[int, typer.Option(help="number of frames from one key frame to the next")] = 16,
    fps: Annotated[float | None, typer.Option(help="number of frames per second to keep; default: all")] = None,
    workers: Workers = None,
    limit: Limit = 600.0,
    shard: Shard = None,
) -> None:
    """Re-encode every video for fast training: H.264, small, with key frames close together. The originals are not
    changed. The exit code is 1 if a video could not be read. After an interruption, the same command continues."""
    from tubelet.videos.encode import Settings
    from tubelet.videos.transcode import transcode

    settings = Settings(short_side, gop, fps)
    raise typer.Exit(1 if transcode(manifest, directory, settings, workers, limit, shard) else 0)


@app.command()
def report(
    runs: Annotated[Path, typer.Argument(help="directory that contains run directories, at any depth")],
    out: Annotated[
        Path | None,
        typer.Option(help="report to write, ending in .html, .png, .csv, .md or .tex; default: RUNS/report.html"),
    ] = None,
) -> None:
    """Compare runs: the settings in which they differ, their final metrics, curves and pictures."""
    from tubelet.report.page import report

    print(report(runs, out))


bench = typer.Typer(help="Measure what a training step and a clip cost on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command("step")
def bench_step(
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


@bench.command("data")
def bench_data(
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


@bench.command("loop")
def bench_loop(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="changes to the run, as train.py takes them: [group=choice] [key=value]")
    ] = None,
    saves: Annotated[int, typer.Option(help="number of checkpoints to save while measuring", min=1)] = 4,
) -> None:
    """Measure what loader, logging, callbacks and checkpoints add to the steps of a real run on demo videos."""
    from tubelet.bench.loop import bench, print_overhead

    print_overhead(bench(overrides or [], saves))


bench.command("memory")(commands.memory)
bench.command("scale")(commands.scale)


@app.command()
def features(
    model: Model,
    manifest: ManifestFile,
    out: Annotated[Path, typer.Option(help="file to write, ending in .safetensors")],
    per_token: Annotated[bool, typer.Option(help="write all tokens instead of their mean")] = False,
    batch_size: Annotated[int, typer.Option(help="number of videos per batch")] = 8,
    num_workers: Annotated[int, typer.Option(help="number of processes that read videos")] = 2,
    device: Device = "cpu",
    preprocess: Preprocess = None,
    trust: Trust = None,
) -> None:
    """Write the features of every video of a manifest. After an interruption, the same command continues."""
    from tubelet.evaluate.features import extract_features
    from tubelet.weights.load import load_encoder

    encoder = load_encoder(model, trust=trust or [], preprocess=settings(preprocess))
    written = extract_features(
        encoder, manifest, out, per_token=per_token, batch_size=batch_size, num_workers=num_workers, device=device
    )
    print(written)


@app.command()
def attention(
    model: Model,
    video: Annotated[Path, typer.Argument(help="any video file")],
    out: Annotated[Path, typer.Option(help="film to write, ending in .gif or .mp4")],
    device: Device = "cpu",
    preprocess: Preprocess = None,
    trust: Trust = None,
) -> None:
    """Draw the attention of the last block over the frames: that of the class token, or the mean over all queries."""
    from tubelet.evaluate.attention import save_attention
    from tubelet.evaluate.device import on_device
    from tubelet.weights.load import load_encoder

    encoder = on_device(load_encoder(model, trust=trust or [], preprocess=settings(preprocess)), device)
    print(save_attention(encoder, video, out))


@app.command()
def masks(
    out: Annotated[Path, typer.Option(help="picture to write, ending in .png")],
    ratio: Annotated[float, typer.Option(help="mask ratio, the share of tokens to hide, in (0, 1)")] = 0.75,
    seed: Annotated[int, typer.Option(help="seed from which the masks are drawn")] = 0,
) -> None:
    """Draw what each masking hides of a clip of 16 frames of 224 x 224."""
    from tubelet.evaluate.masks import draw_masks

    print(draw_masks(out, ratio, seed))


def main() -> None:
    """Run the command. A user's mistake is one line and exit code 2, without a traceback."""
    with user_errors():
        app()


if __name__ == "__main__":
    main()
