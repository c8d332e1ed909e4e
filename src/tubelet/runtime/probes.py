"""The probes of a run: where they are, and what they add to its results. The run `R` has its probe `linear` in
`R/probes/linear`, an ordinary run directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tubelet.loggers.place import PROBES

__all__ = ["PROBES", "probe_directory", "results", "unfinished"]


def probe_directory(run: Path, name: str) -> Path:
    return run / PROBES / name


def unfinished(run: Path, names: Iterable[str]) -> list[str]:
    """Those of the probes `names` that have not ended yet."""
    return [name for name in names if not (probe_directory(run, name) / "summary.json").exists()]


def results(name: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of the probe `name`, and its seconds, as columns of its run: `val/top1` of `linear` is
    `linear/val_top1`, and `val/knn_top1` of `knn` is `knn/top1`. Losses are left out, and what single heads of a probe
    reach, too.
    """
    scores = {
        metric: value
        for metric, value in summary.items()
        if metric.startswith(("val/", "test/", "seconds")) and "loss" not in metric and "_lr" not in metric
    }
    return {f"{name}/{_short(name, metric)}": value for metric, value in scores.items()}


def _short(name: str, metric: str) -> str:
    return metric.removeprefix(f"val/{name}_").replace("/", "_")
