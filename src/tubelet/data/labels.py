"""What a model learns of a video: one class, several classes, or numbers; and how a line of a manifest becomes it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tubelet.data.manifest import LABEL_COLUMNS, ONE_CLASS, Problem, Record

NO_LABEL = -1
"""Instead of a class number: the manifest gives this video none. Instead of several classes or numbers stands NaN."""


@dataclass(frozen=True)
class Labels:
    """problem: what is learned; size: the number of classes or numbers. Raises ValueError for an unknown problem."""

    problem: Problem = ONE_CLASS
    size: int = 0

    def __post_init__(self) -> None:
        if self.problem not in LABEL_COLUMNS:
            raise ValueError(f"unknown problem_type '{self.problem}', expected one of {', '.join(LABEL_COLUMNS)}")

    @property
    def column(self) -> str:
        """The column of a manifest that holds them."""
        return LABEL_COLUMNS[self.problem]

    def of(self, record: Record) -> Tensor:
        """int64 [], a class number; float32 [size], 1 for the classes that the video shows; or float32 [size], its
        numbers.
        """
        if self.problem == ONE_CLASS:
            return torch.tensor(NO_LABEL if record.label is None else record.label)
        if self.problem == "regression":
            return torch.tensor(record.values or [torch.nan] * self.size)
        if record.labels is None:
            return torch.full((self.size,), torch.nan)
        return torch.zeros(self.size).index_fill_(0, torch.tensor(record.labels, dtype=torch.int64), 1.0)


def problem_of(problem_type: Problem | None, size: int) -> Problem:
    """What a model of `size` classes learns. Without `problem_type` one class is a regression, as in transformers."""
    return problem_type or ("regression" if size == 1 else ONE_CLASS)


def known(labels: Tensor) -> Tensor:
    """bool [n]: which rows of a batch of labels are there."""
    return ~labels.isnan().any(1) if labels.is_floating_point() else labels != NO_LABEL
