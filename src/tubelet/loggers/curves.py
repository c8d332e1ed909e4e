"""What metrics.csv holds, for those who only read it: nothing of Lightning is imported."""

from __future__ import annotations

import csv
from pathlib import Path


def read_metrics(path: str | Path) -> dict[str, list[tuple[int, float]]]:
    """metric -> [(step, value)], as far as they were logged. Raises ValueError if the file holds anything else."""
    curves: dict[str, list[tuple[int, float]]] = {}
    try:
        for row in read_rows(Path(path)):
            for name, value in row.items():
                curve = curves.setdefault(name, [])
                if value and name != "step":
                    curve.append((int(row["step"]), float(value)))
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    return curves


def read_rows(path: Path) -> list[dict[str, str]]:
    """One dict per logged step: column -> text, empty where a metric was not logged."""
    with path.open(newline="") as file:
        lines = file.readlines()
    # a killed process may leave half a row at the end
    return list(csv.DictReader(line for line in lines if line.endswith("\n")))
