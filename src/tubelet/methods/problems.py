"""What differs between learning one class, several classes, and numbers: what a manifest must hold, what is measured.

Metrics are torchmetrics'; they are told scores, see `VideoClassifier.scores`.
"""

from __future__ import annotations

from typing import Any, Protocol

import pyarrow.compute as pc
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MultilabelAveragePrecision
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score
from torchmetrics.wrappers import MultioutputWrapper

from tubelet.data.labels import Labels
from tubelet.data.manifest import Manifest
from tubelet.evaluate.views import figures, recall
from tubelet.methods.labels import check_known, check_training, count_classes, require, warn_missing


class Problem(Protocol):
    """size: the number of classes or numbers."""

    score: str
    """The name of the figure that tells how good a model is; larger is better."""

    columns: tuple[str, ...]
    """What `by_class` holds of each class or number; none: it is a confusion matrix, counts [true,guessed]."""

    size: int

    def check(self, manifest: Manifest, where: str, split: str, names: dict[int, str] | None) -> Tensor | None:
        """The weight of each class, [size], in a class-balanced loss, if there can be one.

        Raises ValueError, beginning with `where`, for labels that cannot be learned or compared.
        """

    def metrics(self) -> dict[str, Metric | MetricCollection]:
        """What a validation is measured with."""

    def measured(self, values: dict[str, Tensor]) -> tuple[dict[str, float], Tensor]:
        """What `metrics` computed -> the figures to log, and the table `by_class`."""

    def head_metric(self) -> Metric:
        """The mean over what it computes is `score`."""

    def tested(self, scores: Tensor, labels: Tensor, seed: int) -> tuple[dict[str, float], Tensor]:
        """All scores [n,size] and labels of a test -> the same two."""


class OneClass:
    score = "top1"
    columns: tuple[str, ...] = ()

    def __init__(self, size: int) -> None:
        if size < 2:
            raise ValueError(f"classification needs at least 2 classes, got {size}")
        self.size = size

    def check(self, manifest: Manifest, where: str, split: str, names: dict[int, str] | None) -> Tensor | None:
        if split == "test":
            require(manifest, "label", where, all_videos=False)
            check_known(manifest, where, self.size)
            return None
        counts = count_classes(manifest, where, self.size)
        if split != "train":
            warn_missing(counts, where, names)
            return None
        check_training(counts, where, names)
        return counts.sum() / (self.size * counts.float())

    def metrics(self) -> dict[str, Metric | MetricCollection]:
        found: dict[str, Metric | MetricCollection] = {"top1": self.head_metric()}
        if self.size > 5:
            found["top5"] = MulticlassAccuracy(self.size, top_k=5, average="micro")
        return {**found, "confusion": MulticlassConfusionMatrix(self.size)}

    def measured(self, values: dict[str, Tensor]) -> tuple[dict[str, float], Tensor]:
        confusion = values.pop("confusion").cpu()
        found = {name: float(value) for name, value in values.items()}
        return {**found, "mean_class": float(recall(confusion).nanmean())}, confusion

    def head_metric(self) -> Metric:
        return MulticlassAccuracy(self.size, average="micro")

    def tested(self, scores: Tensor, labels: Tensor, seed: int) -> tuple[dict[str, float], Tensor]:
        counts = torch.bincount(labels * self.size + scores.argmax(1), minlength=self.size**2)
        return figures(scores, labels, seed), counts.view(self.size, self.size)


class SeveralClasses:
    """map: the mean over classes of the average precision; classes without a positive video do not count."""

    score = "map"
    columns: tuple[str, ...] = ("videos", "average_precision")

    def __init__(self, size: int) -> None:
        if size < 2:
            raise ValueError(f"multi-label classification needs at least 2 classes, got {size}")
        self.size = size

    def check(self, manifest: Manifest, where: str, split: str, names: dict[int, str] | None) -> Tensor | None:
        require(manifest, "labels", where, all_videos=split != "test")
        check_known(manifest, where, self.size, "labels")
        shown = pc.list_flatten(manifest.table["labels"]).to_numpy().astype("int64")
        counts = torch.bincount(torch.from_numpy(shown), minlength=self.size)
        # lists of several labels have long tails: one class without a video does not make the others worthless
        warn_missing(counts, where, names, "it is not learned" if split == "train" else "it does not count in map")
        return (len(manifest) - counts) / counts.clamp(min=1)  # negatives / positives of each class

    def metrics(self) -> dict[str, Metric | MetricCollection]:
        return {
            "average_precision": MultilabelAveragePrecision(self.size, average="none"),
            "videos": _Positives(self.size),
        }

    def measured(self, values: dict[str, Tensor]) -> tuple[dict[str, float], Tensor]:
        precision, videos = values["average_precision"].cpu(), values["videos"].cpu()
        precision = precision.where(videos > 0, torch.nan)
        return {"map": float(precision.nanmean())}, torch.stack([videos.float(), precision], dim=1)

    def head_metric(self) -> Metric:
        return MultilabelAveragePrecision(self.size, average="macro")

    def tested(self, scores: Tensor, labels: Tensor, seed: int) -> tuple[dict[str, float], Tensor]:
        return _at_once(self, scores, labels.long())


class Numbers:
    """mse, mae and r2 are means over the numbers; r2 is 1 minus the squared error over that of the mean."""

    score = "r2"
    columns: tuple[str, ...] = ("mean_squared_error", "mean_absolute_error", "r2")

    def __init__(self, size: int) -> None:
        self.size = size

    def check(self, manifest: Manifest, where: str, split: str, names: dict[int, str] | None) -> Tensor | None:
        require(manifest, "values", where, all_videos=split != "test")
        if manifest.num_values not in (0, self.size):
            raise ValueError(f"{where}: its videos have {manifest.num_values} numbers, the model has {self.size}")
        return None

    def metrics(self) -> dict[str, Metric | MetricCollection]:
        kinds = {"mse": MeanSquaredError, "mae": MeanAbsoluteError, "r2": R2Score}
        return {name: MultioutputWrapper(kind(), self.size) for name, kind in kinds.items()}

    def measured(self, values: dict[str, Tensor]) -> tuple[dict[str, float], Tensor]:
        found = {name: float(value.mean()) for name, value in values.items()}
        return found, torch.stack([values[name].cpu() for name in ("mse", "mae", "r2")], dim=1)

    def head_metric(self) -> Metric:
        return MultioutputWrapper(R2Score(), self.size)

    def tested(self, scores: Tensor, labels: Tensor, seed: int) -> tuple[dict[str, float], Tensor]:
        return _at_once(self, scores, labels)


class _Positives(Metric):
    """Videos that show each class."""

    shown: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.add_state("shown", torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, scores: Tensor, labels: Tensor) -> None:
        self.shown += labels.long().sum(0)

    def compute(self) -> Tensor:
        return self.shown


def _at_once(problem: Problem, scores: Tensor, labels: Tensor) -> tuple[dict[str, float], Tensor]:
    metrics = problem.metrics()
    return problem.measured({name: metric(scores, labels) for name, metric in metrics.items()})


_PROBLEMS: dict[str, Any] = {
    "single_label_classification": OneClass,
    "multi_label_classification": SeveralClasses,
    "regression": Numbers,
}


def problem_of(labels: Labels) -> Problem:
    """The problem that a model with such labels learns. Raises ValueError if it has too few classes."""
    problem: Problem = _PROBLEMS[labels.problem](labels.size)
    return problem
