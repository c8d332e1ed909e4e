"""The confusion matrix (confusion.png) and the accuracy of each class (per_class.csv) in the run directory. Of several
labels, per_class.csv has the average precision of each class; of a regression, per_value.csv the errors of each number.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import lightning as L
from torch import Tensor

from tubelet.evaluate.views import recall
from tubelet.methods.base import method_of
from tubelet.storage import replacing

_NAMED = 40  # with more classes than this, their names are not written on the axes


class Confusion(L.Callback):
    """Written when training ends, for the epoch with the best score (val/top1, val/map, val/r2), and after a test. It
    does nothing if the method does not learn labels.
    """

    def __init__(self) -> None:
        self.best = -math.inf
        self.table: Tensor | None = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        method = method_of(trainer)
        if not method.learns_labels:
            return
        assert method.monitor is not None
        score = float(trainer.callback_metrics[method.monitor])
        if self.table is None or score > self.best:
            self.best, self.table = score, method.by_class
        if trainer.state.fn == "validate":
            self._write(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        method = method_of(trainer)
        if method.learns_labels:
            self.table = method.by_class
            self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        if self.table is None or not trainer.is_global_zero:
            return
        method = method_of(trainer)
        named = getattr(method.model, "id2label", None) or {}
        names = [named.get(i, str(i)) for i in range(len(self.table))]
        folder = Path(trainer.default_root_dir)
        if method.by_class_columns:
            file = "per_value.csv" if method.model.labels.problem == "regression" else "per_class.csv"
            write_table(self.table, method.by_class_columns, names, folder / file)
        else:
            draw_confusion(self.table, names, folder / "confusion.png")
            write_per_class(self.table, names, folder / "per_class.csv")

    def state_dict(self) -> dict[str, object]:
        return {"best": self.best, "matrix": self.table}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        # a resumed run may never be better than before: then the table of the best epoch is this one
        self.best, self.table = state_dict["best"], state_dict["matrix"]  # type: ignore[assignment]


def draw_confusion(matrix: Tensor, names: list[str], picture: Path) -> None:
    """matrix: counts [true,guessed]. Colours show the share within a row, so that rare classes are visible, too."""
    from matplotlib.figure import Figure

    shares = matrix.float() / matrix.sum(1, keepdim=True).clamp(min=1)
    size = min(4 + 0.3 * len(names), 14)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="guessed", ylabel="true")
    if len(names) <= _NAMED:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        for true, guessed in matrix.nonzero().tolist():
            colour = "white" if shares[true, guessed] > 0.5 else "black"
            axes.text(
                guessed, true, str(int(matrix[true, guessed])), ha="center", va="center", color=colour, fontsize=8
            )
    with replacing(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def write_per_class(matrix: Tensor, names: list[str], table: Path) -> None:
    """Write one line per class: label, name, videos, accuracy (empty without videos), and the class it is most often
    mistaken for.
    """
    mistaken = matrix - matrix.diagonal().diag()
    accuracy = recall(matrix)
    with replacing(table) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["label", "name", "videos", "accuracy", "mistaken_for"])
        for label, name in enumerate(names):
            videos, other = int(matrix[label].sum()), int(mistaken[label].argmax())
            share = f"{float(accuracy[label]):.4f}" if videos else ""
            rows.writerow([label, name, videos, share, names[other] if mistaken[label, other] else ""])


def write_table(values: Tensor, columns: Sequence[str], names: list[str], table: Path) -> None:
    """Write one line per row of `values` [n,columns]: its number, its name, and the values; NaN is an empty cell."""
    with replacing(table) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["label", "name", *columns])
        for number, (name, row) in enumerate(zip(names, values.tolist(), strict=True)):
            rows.writerow([number, name, *("" if math.isnan(value) else f"{value:.4g}" for value in row)])
