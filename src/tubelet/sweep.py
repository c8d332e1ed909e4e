"""One CSV for a sweep: what differed between its runs, and how each ended."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

IGNORED = ("resume",)


class CollectSweep(Callback):
    """Hydra callback: writes `sweep.csv` into the sweep's directory when its last run has ended."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        if path := collect(folder):
            print(f"sweep: {path}\n{path.read_text()}", end="")


def collect(folder: Path) -> Path | None:
    """Read config.yaml and summary.json of every run below `folder`; write `folder/sweep.csv` and return its path.

    A column for each config key that is not the same in all runs, then one for each metric. Runs without a summary
    (still running, or failed) are listed with empty metrics. None if there is no run.
    """
    runs = sorted((path.parent for path in folder.glob("*/config.yaml")), key=lambda p: (len(p.name), p.name))
    if not runs:
        return None
    configs = [_flat(OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))) for run in runs]
    keys = sorted({key for config in configs for key in config if not key.startswith(IGNORED)})
    varied = [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]
    # an interpolated value varies wherever it is repeated: the shortest key is where it was set
    distinct: dict[tuple[str, ...], str] = {}
    for key in sorted(varied, key=lambda k: (k.count("."), k)):
        distinct.setdefault(tuple(repr(config.get(key)) for config in configs), key)
    rows = []
    for run, config in zip(runs, configs, strict=True):
        summary = run / "summary.json"
        metrics = json.loads(summary.read_text()) if summary.exists() else {}
        rows.append({"run": run.name, **{key: config.get(key) for key in distinct.values()}, **metrics})
    columns = list(dict.fromkeys(column for row in rows for column in row))
    path = folder / "sweep.csv"
    temporary = path.with_name(".sweep.csv.part")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)
    return path


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, child in value.items():
        flat |= _flat(child, f"{prefix}.{key}" if prefix else str(key))
    return flat
