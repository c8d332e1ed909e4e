"""Run directories -> one row each: the settings that differ between their configs, and their last metrics."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tubelet.loggers.curves import read_metrics
from tubelet.runtime.probes import PROBES, results, unfinished
from tubelet.runtime.trials import PRUNED
from tubelet.storage import replacing

ERROR = "error.txt"
"""In the directory of a job of a sweep that failed: why."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
IGNORED = ("resume", "sweep", "callbacks.pruning")


@dataclass(frozen=True)
class Run:
    name: str
    """The path of the run directory, relative to the directory that was searched."""
    path: Path
    config: dict[str, Any]
    """Dotted key -> value; interpolations are not resolved."""
    curves: dict[str, list[tuple[int, float]]]
    """Metric -> [(optimizer step, value)]."""
    summary: dict[str, Any]
    """The final metrics of a finished run, the last logged metrics of any other run; and the results of its probes."""
    finished: bool
    """The run and all its probes."""
    error: str | None = None
    """Why the job of a sweep failed, or the run cannot be read, in one line."""

    pruned: str | None = None
    """Why Optuna has stopped the run early, in one line. Such a run has no result."""

    @property
    def state(self) -> str:
        if self.error is not None and not self.finished:
            return f"failed: {self.error}"
        if self.pruned is not None:
            return f"pruned: {self.pruned}"
        return "finished" if self.finished else "unfinished"


def find_runs(folder: Path) -> list[Run]:
    """Every run directory below `folder` (or `folder` itself), sorted by name, with numbers in order: 2 before 10.

    A run with a damaged file is one that failed: it has no results, and its `error` names the file. Raises ValueError
    if there is no run.
    """
    found = []
    for directory, folders, files in os.walk(folder):
        if "config.yaml" in files and ("checkpoints" in folders or ERROR in files):  # conf/ has a config.yaml, too
            found.append(Path(directory))
            folders.clear()  # no run directory lies within another
        folders[:] = [name for name in folders if not name.startswith(".")]
    if not found:
        raise ValueError(f"{folder}: no run directory in it")
    return [_read_or_say(path, folder) for path in sorted(found, key=lambda path: _natural(path.relative_to(folder)))]


def grouped(runs: list[Run]) -> dict[str, list[Run]]:
    """The runs by the `name` in their config, usually the experiment: only such runs have comparable curves."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(str(run.config.get("name", "")), []).append(run)
    return groups


def varied(runs: list[Run]) -> list[str]:
    """The config keys whose values differ between the runs. If one key repeats another by interpolation, both differ in
    the same way; then only the shortest key is listed, because the value was set there. A run whose config cannot be
    read says nothing of this."""
    runs = [run for run in runs if run.config]
    keys = {key for run in runs for key in run.config if not key.startswith(IGNORED)}
    values = {key: tuple(repr(run.config.get(key)) for run in runs) for key in keys}
    distinct: dict[tuple[str, ...], str] = {}
    for key in sorted(keys, key=lambda key: (key.count("."), key)):
        if len(set(values[key])) > 1:
            distinct.setdefault(values[key], key)
    return list(distinct.values())


def swept_keys(runs: list[Run]) -> list[str]:
    """The keys that were swept, without seeds. What was swept brings settings of its own along: a key whose value
    follows from that of a class, or of another name such as a scene's, is left out.
    """
    keys = [key for key in varied(runs) if not key.endswith("seed")]
    kept: list[str] = []
    for key in sorted(keys, key=lambda key: (not key.endswith("._target_"), not _is_name(runs, key))):
        if not any(_follows(runs, key, other) for other in kept):
            kept.append(key)
    return kept


def _is_name(runs: list[Run], key: str) -> bool:
    return all(isinstance(run.config.get(key), str) for run in runs)


def _follows(runs: list[Run], key: str, other: str) -> bool:
    pairs = {(repr(run.config.get(other)), repr(run.config.get(key))) for run in runs}
    return len(pairs) == len({value for value, _ in pairs})


def rows(runs: list[Run]) -> list[dict[str, Any]]:
    """One row per run: `run`, `state`, the keys that differ, then the last metrics. A class is named without its
    module: `masking: tube`, not `masking._target_: tubelet.masking.tube`.
    """
    keys = varied(runs)
    return [
        {
            "run": run.name,
            "state": run.state,
            **{short_key(key): _short(key, run.config.get(key)) for key in keys},
            **{name: value for name, value in run.summary.items() if name != "name"},
        }
        for run in runs
    ]


def short_key(key: str) -> str:
    """`masking._target_` -> `masking`"""
    return key.removesuffix("._target_")


def short_value(key: str, value: Any) -> str:
    """The value of a key as text; a Python path without its modules."""
    return str(_short(key, value))


def _short(key: str, value: Any) -> Any:
    return str(value).rpartition(".")[2] if key.endswith("_target_") and value is not None else value


def write_csv(runs: list[Run], path: Path) -> None:
    """Write `rows` with every column that any row has."""
    table = rows(runs)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns(table))
    writer.writeheader()
    writer.writerows(table)
    with replacing(path, concurrent=True) as temporary:  # the jobs of a sweep may run at once
        temporary.write_text(text.getvalue())


def columns(table: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(column for row in table for column in row))


def read_run(path: Path, name: str) -> Run:
    """The run in the directory `path`. Raises ValueError or OSError, which name the file, if it cannot be read."""
    return _with_results(Run(name, path, _config(path / "config.yaml"), {}, {}, finished=False))


def _with_results(run: Run) -> Run:
    path, config = run.path, run.config
    metrics, summary = path / "metrics.csv", path / "summary.json"
    curves = read_metrics(metrics) if metrics.exists() else {}
    if finished := summary.exists():
        last = _mapping(summary)
    else:
        last = {"steps": max(curve[-1][0] for curve in curves.values() if curve)} if any(curves.values()) else {}
        last |= {name: curve[-1][1] for name, curve in curves.items() if curve}
    error = _reason(path)
    for probe in sorted((path / PROBES).glob("*")):
        if (probe / "summary.json").exists():
            found = _mapping(probe / "summary.json")
            last |= results(probe.name, found)
            if "device_hours" in last:  # of all that the point has cost
                last["device_hours"] += found.get("device_hours", 0.0)
        elif reason := _reason(probe):
            error = f"{probe.name}: {reason}"
    finished = finished and not unfinished(path, config.get("sweep.probes") or [])
    pruned = _line(path / PRUNED)
    return Run(run.name, path, config, curves, last, finished and pruned is None, error, pruned)


def _read_or_say(path: Path, folder: Path) -> Run:
    name = path.name if path == folder else str(path.relative_to(folder))
    run = Run(name, path, {}, {}, {}, finished=False)
    try:
        run = replace(run, config=_config(path / "config.yaml"))
        return _with_results(run)
    except (OSError, ValueError) as error:  # of one run: the others are to be seen
        return replace(run, error=str(error))


def _config(file: Path) -> dict[str, Any]:
    try:
        # not by OmegaConf, which takes 20 times as long
        config: Any = yaml.load(file.read_text(), Loader=_LOADER)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{file} is no config: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} is no config: it holds a list")
    return _flat(config)


def _mapping(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} is damaged: it holds no names and values")
    return found


def _reason(path: Path) -> str | None:
    """The first line of what says why a job failed."""
    return _line(path / ERROR)


def _line(file: Path) -> str | None:
    """The first line of a file, if there is one."""
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    return lines[0] if lines else None


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, child in value.items():
        flat |= _flat(child, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _natural(path: Path) -> list[tuple[str, float]]:
    """2 before 10, and 0.75 before 0.9"""
    return [(text, float(number or 0)) for text, number in re.findall(r"(\D*)(\d*(?:\.\d+)?)", str(path))]
