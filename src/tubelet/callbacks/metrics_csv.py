"""metrics.csv in the run directory: a row a logged step, a column a metric. A resumed run continues it."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only


class MetricsCSV(Logger):
    """Rows are appended and flushed as they come; a new column rewrites the file (atomically)."""

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self.columns: list[str] = []
        if self.path.exists():
            self.columns = list(read_metrics(self.path))

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing: config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = {"step": step, **metrics}
        new = [name for name in row if name not in self.columns]
        if new:
            self._rewrite(self.columns + new, self._rows())
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def forget_after(self, step: int) -> None:
        """Drop the rows of steps that an interrupted run did after its last checkpoint: they will be done again."""
        if self.columns:
            self._rewrite(self.columns, [row for row in self._rows() if int(row["step"]) < step])

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            # a killed process may leave half a row at the end
            return [row for row in csv.DictReader(file) if None not in row.values() and row["step"].isdigit()]

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        temporary = self.path.with_name(f".{self.path.name}.part")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self.path)
        self.columns = columns


def read_metrics(path: str | Path) -> dict[str, list[tuple[int, float]]]:
    """metric -> [(step, value)], as far as they were logged."""
    curves: dict[str, list[tuple[int, float]]] = {}
    with Path(path).open(newline="") as file:
        reader = csv.DictReader(file)
        for name in reader.fieldnames or []:
            curves[name] = []
        for row in reader:
            for name, value in row.items():
                if value and name != "step":
                    curves[name].append((int(row["step"]), float(value)))
    return curves
