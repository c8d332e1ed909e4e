"""Predicting the class, the classes or the numbers of a video file."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from tubelet.data.manifest import ONE_CLASS, Problem
from tubelet.data.reader import Video, frame_times, read_clip
from tubelet.evaluate.device import device_of
from tubelet.models.classifier import VideoClassifier


@torch.no_grad()
def predict(
    model: VideoClassifier,
    video: str | PathLike[str],
    topk: int = 5,
    clips: int = 5,
    crops: int = 3,
    stride: int | None = None,
    reader: str = "auto",
) -> list[tuple[str, float]]:
    """[(label, probability)], the most probable first; of several labels, each has a probability of its own. Of a
    regression all [(name, value)], in their order. Both are averaged over views: `clips` that cover the video, times
    `crops` along the long side.

    A class without a name gets its number. `stride` is the distance between frames; None: as in training. Raises
    ValueError if the model is not a classifier, VideoError if the file cannot be read.
    """
    if not isinstance(model, VideoClassifier):
        raise ValueError(f"predict needs a classifier, got a {type(model).__name__}")
    check_topk(topk)
    grid, preprocess = model.grid, model.preprocess

    sampling = preprocess.frames(stride)

    def choose(opened: Video) -> list[int]:
        times = frame_times(opened.path) if sampling.fps else None
        views = sampling.views(opened.num_frames, opened.fps, grid.frames, clips, times)
        return [number for view in views for number in view]

    shrink = preprocess.shrinker((grid.height, grid.width), crops)
    frames = read_clip(video, choose, reader, shrink)  # [clips*T,crops,h,w,C]: whole frames would fill the memory
    # the video is decoded once; the model runs once per crop, which limits the memory
    device = device_of(model)
    training = model.training
    model.eval()
    total = torch.zeros(model.num_classes)
    for crop in frames.unbind(1):
        views = crop.unflatten(0, (clips, -1)).permute(0, 4, 1, 2, 3)  # [clips,T,h,w,C] -> [clips,C,T,h,w]
        total += model.scores(model(preprocess.normalise(views.to(device)))).sum(dim=0).cpu()
    model.train(training)
    return ranked(total / (clips * crops), class_names(model), topk, model.problem)


def check_topk(topk: int) -> None:
    if topk < 1:
        raise ValueError(f"topk must be at least 1, got {topk}")


def class_names(model: VideoClassifier) -> list[str]:
    """In the order of the scores; a class without a name gets its number."""
    names = model.id2label or {}
    return [names.get(i, str(i)) for i in range(model.num_classes)]


def ranked(scores: Tensor, names: list[str], topk: int, problem: Problem = ONE_CLASS) -> list[tuple[str, float]]:
    """[(label, score)] of scores [classes]: the best `topk` of them, the best first; of a regression all in order."""
    if problem == "regression":
        return list(zip(names, scores.tolist(), strict=True))
    return [(names[i], float(scores[i])) for i in scores.topk(min(topk, len(names))).indices.tolist()]


def name_classes(model: VideoClassifier, path: str | PathLike[str]) -> None:
    """Set the class names of a classifier from a file with one name per line. Raises ValueError if it is no text, or
    if their number is not the number of classes.
    """
    try:
        names = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file of class names: {error}") from error
    if len(names) != model.num_classes:
        raise ValueError(f"{path} names {len(names)} classes, the model has {model.num_classes}")
    model.id2label = dict(enumerate(names))
