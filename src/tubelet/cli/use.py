"""Commands that use a model: on videos, in pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tubelet.config.options import Device, ManifestFile, Model, Preprocess, Trust, settings


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


def masks(
    out: Annotated[Path, typer.Option(help="picture to write, ending in .png")],
    ratio: Annotated[float, typer.Option(help="mask ratio, the share of tokens to hide, in (0, 1)")] = 0.75,
    seed: Annotated[int, typer.Option(help="seed from which the masks are drawn")] = 0,
) -> None:
    """Draw what each masking hides of a clip of 16 frames of 224 x 224."""
    from tubelet.evaluate.masks import draw_masks

    print(draw_masks(out, ratio, seed))
