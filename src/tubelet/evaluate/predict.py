"""Predicting the class of a video file."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch

from tubelet.data.reader import Video, frame_times, read_clip
from tubelet.data.transforms import view_shrinker
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
    """[(label, probability)], the most probable first. Probabilities are averaged over views: `clips` that cover the
    video, times `crops` along the long side.

    A class without a name gets its number. `stride` is the distance between frames; None: as in training. Raises
    ValueError if the model is not a classifier of two or more classes, VideoError if the file cannot be read.
    """
    if not isinstance(model, VideoClassifier) or model.num_classes < 2:
        raise ValueError(f"predict needs a classifier of two or more classes, got a {_name(model)}")
    if topk < 1:
        raise ValueError(f"topk must be at least 1, got {topk}")
    grid, preprocess = model.grid, model.preprocess

    sampling = preprocess.frames(stride)

    def choose(opened: Video) -> list[int]:
        times = frame_times(opened.path) if sampling.fps else None
        views = sampling.views(opened.num_frames, opened.fps, grid.frames, clips, times)
        return [number for view in views for number in view]

    shrink = view_shrinker((grid.height, grid.width), preprocess.short_side, crops)
    frames = read_clip(video, choose, reader, shrink)  # [clips*T,crops,h,w,C]: whole frames would fill the memory
    # the video is decoded once; the model runs once per crop, which limits the memory
    device = model.head.weight.device
    training = model.training
    model.eval()
    total = torch.zeros(model.num_classes)
    for crop in frames.unbind(1):
        views = crop.unflatten(0, (clips, -1)).permute(0, 4, 1, 2, 3)  # [clips,T,h,w,C] -> [clips,C,T,h,w]
        logits = model(preprocess.normalise(views.to(device)))
        total += logits.float().softmax(dim=1).sum(dim=0).cpu()
    model.train(training)
    best = (total / (clips * crops)).topk(min(topk, model.num_classes))
    names = model.id2label or {}
    return [(names.get(i, str(i)), p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def name_classes(model: VideoClassifier, path: str | PathLike[str]) -> None:
    """Set the class names of a classifier from a file with one name per line. Raises ValueError if their number is not
    the number of classes.
    """
    names = Path(path).read_text(encoding="utf-8").splitlines()
    if len(names) != model.num_classes:
        raise ValueError(f"{path} names {len(names)} classes, the model has {model.num_classes}")
    model.id2label = dict(enumerate(names))


def _name(model: object) -> str:
    classes = getattr(model, "num_classes", None)
    return type(model).__name__ if classes is None else f"{type(model).__name__} of {classes}"
