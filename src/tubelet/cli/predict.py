"""Commands that ask a classifier."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tubelet.config.options import Device, Model, Preprocess, Trust, settings


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
