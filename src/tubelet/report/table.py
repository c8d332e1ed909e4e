"""Run directories -> one row each: what differed between their configs, and how each ended."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tubelet.loggers.curves import read_metrics
from tubelet.storage import write_text

IGNORED = ("resume",)


@dataclass(frozen=True)
class Run:
    name: str
    """Its path, from the directory that was searched."""
    path: Path
    config: dict[str, Any]
    """Dotted key -> value, interpolations as they are written."""
    curves: dict[str, list[tuple[int, float]]]
    """Metric -> [(optimizer step, value)]."""
    summary: dict[str, Any]
    """The numbers a finished run ended with; of any other run, the last ones it has logged."""
    finished: bool


def find_runs(folder: Path) -> list[Run]:
    """Every run directory below `folder` (which may be one), in the order of their names, 2 before 10.

    Raises ValueError if there is none.
    """
    found = []
    for directory, folders, files in os.walk(folder):
        if "config.yaml" in files and "checkpoints" in folders:  # conf/ has the former, too
            found.append(Path(directory))
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith(".")]
    if not found:
        raise ValueError(f"{folder}: no run directory in it")
    return [_read(path, folder) for path in sorted(found, key=lambda path: _natural(path.relative_to(folder)))]


def grouped(runs: list[Run]) -> dict[str, list[Run]]:
    """By their config's `name`, the experiment as a rule: only those can be compared curve by curve."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(str(run.config.get("name", "")), []).append(run)
    return groups


def varied(runs: list[Run]) -> list[str]:
    """The config keys that are not the same in all runs. An interpolated value varies wherever it is repeated: the
    shortest key is where it was set."""
    keys = {key for run in runs for key in run.config if not key.startswith(IGNORED)}
    values = {key: tuple(repr(run.config.get(key)) for run in runs) for key in keys}
    distinct: dict[tuple[str, ...], str] = {}
    for key in sorted(keys, key=lambda key: (key.count("."), key)):
        if len(set(values[key])) > 1:
            distinct.setdefault(values[key], key)
    return list(distinct.values())


def rows(runs: list[Run]) -> list[dict[str, Any]]:
    """For each run: `run`, `state`, what varied, then the numbers it ended with."""
    keys = varied(runs)
    return [
        {
            "run": run.name,
            "state": "finished" if run.finished else "unfinished",
            **{key: run.config.get(key) for key in keys},
            **run.summary,
        }
        for run in runs
    ]


def write_csv(runs: list[Run], path: Path) -> None:
    """`rows`, with every column that any of them has."""
    table = rows(runs)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns(table))
    writer.writeheader()
    writer.writerows(table)
    write_text(path, text.getvalue())


def columns(table: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(column for row in table for column in row))


def _read(path: Path, folder: Path) -> Run:
    config = _flat(OmegaConf.to_container(OmegaConf.load(path / "config.yaml")))
    metrics, summary = path / "metrics.csv", path / "summary.json"
    curves = read_metrics(metrics) if metrics.exists() else {}
    if finished := summary.exists():
        last = json.loads(summary.read_text())
    else:
        last = {"steps": max(curve[-1][0] for curve in curves.values() if curve)} if any(curves.values()) else {}
        last |= {name: curve[-1][1] for name, curve in curves.items() if curve}
    name = path.name if path == folder else str(path.relative_to(folder))
    return Run(name, path, config, curves, last, finished)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, child in value.items():
        flat |= _flat(child, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _natural(path: Path) -> list[tuple[str, int]]:
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", str(path))]
