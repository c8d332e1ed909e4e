"""What a run is called by its place: `runs/EXPERIMENT/POINT`, and its probes in `POINT/probes/NAME`."""

from __future__ import annotations

from pathlib import Path

PROBES = "probes"
"""The directory of the probes in that of their run."""


def group_of(run_dir: Path) -> str:
    """What a run is compared with: the directory of its experiment or of its study. A probe belongs to its point."""
    return _point(run_dir).absolute().parent.name


def name_of(run_dir: Path) -> str:
    """`POINT`, and `POINT/NAME` for a probe."""
    point = _point(run_dir)
    return point.name if point == run_dir else f"{point.name}/{run_dir.name}"


def probe_of(run_dir: Path) -> str | None:
    """The name of a probe; None for any other run."""
    return run_dir.name if run_dir.parent.name == PROBES else None


def _point(run_dir: Path) -> Path:
    return run_dir if probe_of(run_dir) is None else run_dir.parents[1]
