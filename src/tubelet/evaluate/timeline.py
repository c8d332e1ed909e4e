"""The scores of a classifier over the time of a video: smoothed, cut into segments, written as JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tubelet.data.manifest import Problem
from tubelet.data.reader import VideoError
from tubelet.evaluate.predict import class_names, ranked
from tubelet.evaluate.stream import stream
from tubelet.models.classifier import VideoClassifier

_THUMBNAILS = 12  # at least so many pictures of a longer video are kept, and at most twice as many


@dataclass(frozen=True)
class Segment:
    """Where a class scores at least the threshold: in seconds, and its mean score there."""

    label: str
    start: float
    end: float
    score: float


@dataclass(frozen=True)
class Timeline:
    """`windows`: (start, end, valid) of each, as `stream` gives them; `scores` float32 [windows,classes]; `labels`: the
    names of the classes; `pictures`: (seconds, uint8 [h,w,C]) at even distances over the video; `segments`: those above
    `threshold`, in order of time; `problem`: of the classifier.
    """

    video: str
    windows: list[tuple[float, float, int]]
    scores: Tensor
    labels: list[str]
    pictures: list[tuple[float, Tensor]]
    segments: list[Segment]
    threshold: float | None
    problem: Problem

    @property
    def numbers(self) -> bool:
        """Whether scores are numbers of any size, and no probabilities."""
        return self.problem == "regression"


def timeline(
    model: Any, video: str | PathLike[str], smooth: int = 1, threshold: float | None = None, **settings: Any
) -> Timeline:
    """The scores of every window of a video file.

    smooth: windows of a centred moving average, odd; 1: none. threshold: in (0, 1), of segments; None: no segments.
    settings: stride, frame_stride, fps of `stream`. Raises ValueError if the model is no classifier, or if a regression
    is asked for segments; VideoError if the file cannot be read.
    """
    if not isinstance(model, VideoClassifier):
        raise ValueError(f"a timeline needs a classifier, got a {type(model).__name__}")
    if smooth < 1 or smooth % 2 == 0:
        raise ValueError(f"smooth must be an odd number of windows, got {smooth}")
    if threshold is not None and (model.problem == "regression" or not 0 < threshold < 1):
        raise ValueError(f"threshold must lie in (0, 1) and be of probabilities, got {threshold} of a {model.problem}")
    windows: list[tuple[float, float, int]] = []
    rows: list[Tensor] = []
    pictures: list[tuple[float, Tensor]] = []
    every = 1
    for i, window in enumerate(stream(model, video, **settings)):
        if math.isnan(window.start):
            raise VideoError(video, "has no frame rate, so nothing says when its windows are shown")
        windows.append((window.start, window.end, window.valid))
        rows.append(window.values)
        if i % every == 0:
            pictures.append(((window.start + window.end) / 2, window.picture.clone()))
        if len(pictures) == 2 * _THUMBNAILS:  # a film of hours must not lie in memory
            pictures, every = pictures[::2], 2 * every
    scores = F.avg_pool1d(torch.stack(rows).T, smooth, 1, smooth // 2, count_include_pad=False).T
    labels = class_names(model)
    segments = [] if threshold is None else segments_above(scores, windows, labels, threshold)
    return Timeline(str(video), windows, scores, labels, pictures, segments, threshold, model.problem)


def segments_above(
    scores: Tensor, windows: Sequence[tuple[float, float, int]], labels: Sequence[str], threshold: float
) -> list[Segment]:
    """Of every class the runs of windows with at least this score, scores [windows,classes]; runs that overlap in time
    are one. In order of time.
    """
    found = []
    for number, label in enumerate(labels):
        runs: list[list[int]] = []
        for i in torch.nonzero(scores[:, number] >= threshold).flatten().tolist():
            if runs and (i == runs[-1][-1] + 1 or windows[i][0] < windows[runs[-1][-1]][1]):
                runs[-1].append(i)
            else:
                runs.append([i])
        for run in runs:
            mean = float(scores[run, number].mean())
            found.append(Segment(label, windows[run[0]][0], windows[run[-1]][1], mean))
    return sorted(found, key=lambda segment: (segment.start, segment.end))


def as_json_line(found: Timeline, topk: int) -> str:
    """Every window with its `topk` best classes, and the segments."""
    windows = []
    for (start, end, valid), scores in zip(found.windows, found.scores, strict=True):
        top = ranked(scores, found.labels, topk, found.problem)
        listed = [{"label": label, "score": score} for label, score in top]
        windows.append({"start": start, "end": end, "valid": valid, "top": listed})
    return json.dumps({"video": found.video, "windows": windows, "segments": [vars(each) for each in found.segments]})


def as_csv(timelines: Sequence[Timeline]) -> str:
    """A line per window: video, start, end, valid, and the score of every class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video", "start", "end", "valid", *timelines[0].labels])
    for each in timelines:
        for (start, end, valid), scores in zip(each.windows, each.scores, strict=True):
            numbers = (f"{value:.6g}" for value in scores.tolist())
            writer.writerow([each.video, f"{start:.3f}", f"{end:.3f}", valid, *numbers])
    return text.getvalue()
