"""The command `tubelet predict`: of whole videos, over their time, or of a camera."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tubelet.config.options import Device, Fps, FrameStride, Model, Preprocess, Trust, settings


def predict(
    model: Model,
    videos: Annotated[
        list[str], typer.Argument(help="any video files; with --live, rtsp://... or another address, webcam, or -")
    ],
    topk: Annotated[int, typer.Option(help="number of classes to print per video, the most probable ones")] = 5,
    labels: Annotated[
        Path | None, typer.Option(help="file with one class name per line, for weights without class names")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print one JSON object per video (live: per window), each on its own line")
    ] = False,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="print the scores of every window of the videos")
    ] = False,
    live: Annotated[
        bool,
        typer.Option("--live", help="print the scores of a source as it goes on; windows that come late are dropped"),
    ] = False,
    stride: Annotated[
        int | None, typer.Option(help="of windows: sampled frames from one to the next; default: one after the other")
    ] = None,
    frame_stride: FrameStride = None,
    fps: Fps = None,
    smooth: Annotated[
        int, typer.Option(help="with --timeline: number of windows of a moving average, odd; 1: none")
    ] = 1,
    threshold: Annotated[
        float | None, typer.Option(help="with --timeline: print the segments in which a class scores at least this")
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="with --timeline: file to write, ending in .json, .csv or .png; may be given several times"),
    ] = None,
    device: Device = "cpu",
    preprocess: Preprocess = None,
    trust: Trust = None,
) -> None:
    """Predict the classes of videos, or the numbers of a regression. They are averaged over views that cover the whole
    video, or given window by window (--timeline, --live).
    """
    from tubelet.evaluate.device import on_device
    from tubelet.evaluate.predict import check_topk, name_classes
    from tubelet.models.classifier import VideoClassifier
    from tubelet.weights.load import load_model

    windows = {"stride": stride, "frame_stride": frame_stride, "fps": fps}
    smoothed = None if smooth == 1 else smooth
    _check_choice(timeline, live, len(videos), {**windows, "threshold": threshold, "out": out, "smooth": smoothed})
    check_topk(topk)
    if timeline:
        from tubelet.evaluate.timeline_files import check_outputs

        check_outputs(out or [], len(videos))
    classifier = on_device(load_model(model, trust=trust or [], preprocess=settings(preprocess)), device)
    if not isinstance(classifier, VideoClassifier):
        raise ValueError(f"predict needs a classifier, {model} is a {type(classifier).__name__}")
    if labels is not None:
        name_classes(classifier, labels)
    if live:
        _watch(classifier, videos[0], topk, as_json, windows)
    elif timeline:
        _over_time(classifier, videos, topk, as_json, smooth, threshold, out or [], windows)
    else:
        _whole_videos(classifier, videos, topk, as_json)


def _check_choice(timeline: bool, live: bool, videos: int, given: dict[str, Any]) -> None:
    if timeline and live:
        raise ValueError("--timeline and --live cannot both be set")
    if live and videos > 1:
        raise ValueError(f"--live takes one source, got {videos}")
    names = ["threshold", "out", "smooth"] if live else [] if timeline else list(given)
    if meaningless := [name.replace("_", "-") for name in names if given[name] not in (None, [])]:
        needed = "--timeline" if live or meaningless[0] in ("threshold", "out", "smooth") else "--timeline or --live"
        raise ValueError(f"--{meaningless[0]} has a meaning only with {needed}")


def _whole_videos(classifier: Any, videos: list[str], topk: int, as_json: bool) -> None:
    from tubelet.evaluate.predict import predict

    numbers = getattr(classifier, "problem", None) == "regression"

    def show(video: str) -> None:
        top = predict(classifier, video, topk)
        if as_json and numbers:
            print(json.dumps({"video": video, "values": dict(top)}))
        elif as_json:
            print(json.dumps({"video": video, "top": [{"label": a, "probability": p} for a, p in top]}))
        else:
            print(video, *(f"{_shown(score, numbers)}  {name}" for name, score in top), sep="\n  ")

    _each(videos, show)


def _over_time(
    classifier: Any, videos: list[str], topk: int, as_json: bool, smooth: int, threshold: float | None,
    out: list[Path], windows: dict[str, Any],
) -> None:  # fmt: skip
    from tubelet.evaluate.predict import ranked
    from tubelet.evaluate.timeline import Timeline, as_json_line, timeline
    from tubelet.evaluate.timeline_files import write_timelines

    found: list[Timeline] = []

    def show(video: str) -> None:
        each = timeline(classifier, video, smooth, threshold, **windows)
        found.append(each)
        if as_json:
            print(as_json_line(each, topk))
            return
        print(video)
        for (start, end, _), scores in zip(each.windows, each.scores, strict=True):
            top = ranked(scores, each.labels, topk, classifier.problem)
            print(f"  {_seconds(start, end)}", *(f"{_shown(score, each.numbers)} {name}" for name, score in top))
        for segment in each.segments:
            print(f"  {_seconds(segment.start, segment.end)} segment: {segment.score:.2%} {segment.label}")

    try:
        _each(videos, show)
    finally:
        for path in out if found else []:
            write_timelines(found, path, topk)


def _watch(classifier: Any, source: str, topk: int, as_json: bool, windows: dict[str, Any]) -> None:
    from tubelet.evaluate.predict import class_names, ranked
    from tubelet.evaluate.stream import stream

    names, dropped = class_names(classifier), 0
    numbers = classifier.problem == "regression"
    for window in stream(classifier, source, live=True, **windows):
        if window.dropped > dropped:
            late = window.dropped - dropped
            print(f"{late} late windows dropped: the model is slower than the source", file=sys.stderr)
            dropped = window.dropped
        top = ranked(window.values, names, topk, classifier.problem)
        if as_json:
            scores = [{"label": name, "score": score} for name, score in top]
            line = json.dumps({"start": window.start, "end": window.end, "dropped": dropped, "top": scores})
        else:
            shown = (f"{_shown(score, numbers)} {name}" for name, score in top)
            line = " ".join([_seconds(window.start, window.end), *shown])
        print(line, flush=True)


def _each(videos: list[str], show: Any) -> None:
    """The others are still predicted if one cannot be read."""
    from tubelet.data.reader import VideoError

    failed = 0
    for video in videos:
        try:
            show(video)
        except VideoError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
    if failed:
        raise typer.Exit(1 if failed < len(videos) else 2)


def _shown(score: float, number: bool = False) -> str:
    return f"{score:9.4g}" if number else f"{score:7.2%}"


def _seconds(start: float, end: float) -> str:
    return f"{start:8.2f} - {end:8.2f} s"
