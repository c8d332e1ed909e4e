"""The videos of a list that an encoder finds most like a given one: what it takes for alike, without any label."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tubelet.data.dataset import EvaluationVideos
from tubelet.data.load_clip import load_clip
from tubelet.data.manifest import Manifest
from tubelet.evaluate.device import device_of
from tubelet.evaluate.features import extract_features, read_features, stamp_of
from tubelet.evaluate.knn import comparable, pooled_features
from tubelet.evaluate.pictures import check_picture, save_videos
from tubelet.models.base import encoder_of


@dataclass(frozen=True)
class Neighbour:
    """line: its number in the list, from 0. cosine: of the two standardised features, 1 for the same direction. label:
    the name or number of its class; None: it has none.
    """

    path: str
    line: int
    cosine: float
    label: str | None

    def __str__(self) -> str:
        return "  ".join([f"{self.cosine:6.3f}", *([self.label] if self.label else []), self.path])


@torch.no_grad()
def find_neighbours(
    model: Any,
    manifest: str | Path,
    video: str | PathLike[str],
    k: int = 5,
    features: str | Path | None = None,
    num_workers: int = 2,
) -> list[Neighbour]:
    """The k videos of the list with the nearest features, the nearest first, without `video` itself. The features are
    the mean tokens of the clip in the middle of each video, standardised over the list.

    features: a file that `extract_features` has written of this list with this model; None: they are computed.

    Raises ValueError if the list has no other video, or if the file is of another list or model, and VideoError for a
    video that cannot be read.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    videos, encoder = Manifest.read(manifest), encoder_of(model).eval()
    records = [videos.record(i) for i in range(len(videos))]
    own = Path(video).resolve()
    others = [i for i, record in enumerate(records) if Path(record.path).resolve() != own]
    if not others:
        raise ValueError(f"{manifest} holds no other video than {video}")
    query = pooled_features(encoder, load_clip(video, model).to(device_of(encoder))).cpu()
    if features is None:
        with TemporaryDirectory() as directory:
            bank = _read(extract_features(
                model, manifest, Path(directory) / "f.safetensors", num_workers=num_workers, device=device_of(encoder)
            ), records, model)  # fmt: skip
    else:
        bank = _read(features, records, model)
    bank, query = comparable(bank[others], query)
    cosines, nearest = (query @ bank.T)[0].topk(min(k, len(others)))
    names = videos.class_names()
    found = []
    for cosine, place in zip(cosines.tolist(), nearest.tolist(), strict=True):
        record = records[others[place]]
        label = None if record.label is None else str(record.label) if names is None else names[record.label]
        found.append(Neighbour(str(record.path), others[place], cosine, label))
    return found


def _read(path: str | Path, records: list[Any], model: Any) -> Tensor:
    """The features [n,D] of a file, which must be those of these records and of this model."""
    encoder = encoder_of(model)
    try:
        features, _, paths = read_features(path)
        with safe_open(path, "pt") as file:
            stamp = file.metadata().get("model")  # files of earlier versions have none
    except (SafetensorError, FileNotFoundError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no file of `tubelet features`: {error}") from error
    if [str(record.path) for record in records] != paths:
        raise ValueError(f"{path} holds the features of another list: {len(paths)} videos, this one has {len(records)}")
    if features.shape[1:] != (encoder.dim,):
        raise ValueError(
            f"{path} holds features {list(features.shape)} of another kind, this model makes [n,{encoder.dim}] "
            "(without --per-token)"
        )
    if stamp not in (None, stamp_of(encoder, model.preprocess)):
        raise ValueError(f"{path} holds the features of another model, or of pixels that were prepared otherwise")
    return features.float()


def save_neighbours(
    model: Any, manifest: str | Path, video: str | PathLike[str], found: list[Neighbour], path: str | Path
) -> Path:
    """Draw the clips that were compared: `video` first, then its neighbours. See `save_videos` for the endings."""
    path = check_picture(path)
    encoder, preprocess = encoder_of(model), model.preprocess
    videos = Manifest.read(manifest)
    dataset = EvaluationVideos(videos, encoder.grid, preprocess.frames(), seed=0, preprocess=preprocess)
    clips = [preprocess.denormalise(load_clip(video, model))[0].clamp(0, 1)]  # [C,T,H,W]
    for each in found:
        sample = dataset[0, each.line]
        assert sample is not None
        clips.append(sample.clips[0].float() / 255)
    labels = [Path(video).name, *(" ".join([f"{e.cosine:.2f}", e.label or "", Path(e.path).name]) for e in found)]
    return save_videos([clip.movedim(0, -1)[None] for clip in clips], labels, path)
