"""Charts of a report as data. charts.js draws them: they answer the pointer, and take the colours of the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from tubelet.report.curves import drawable, labels
from tubelet.report.table import Run

_PALETTE = (
    "#2f7de1", "#e07b28", "#2a9d5c", "#d6453d", "#8d62c9", "#a0674b", "#d766b4", "#7f8790", "#a9a51f", "#1fa9b8",
)  # fmt: skip
_MOST_POINTS = 400
"""Of a curve: the page stays small, and a screen shows no more."""


@dataclass(frozen=True)
class Series:
    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    spread: Sequence[float] = ()
    """The standard deviation of each point."""
    dots: Sequence[tuple[float, float]] = ()
    """What the points are means of."""
    line: bool = True


@dataclass(frozen=True)
class Chart:
    title: str
    x: str
    series: list[Series] = field(default_factory=list)
    names: list[str] | None = None
    """What stands at x = 0, 1, ...; None: x is a number."""


@dataclass(frozen=True)
class Map:
    title: str
    head: list[str]
    rows: dict[str, list[float | None]]


def colour(i: int, of: int) -> str:
    return _PALETTE[i] if of <= len(_PALETTE) else f"hsl({360 * i / of:.0f} 60% 50%)"


def curve_charts(runs: list[Run]) -> list[Chart]:
    """A chart per metric that any run has logged, with a line per run."""
    named = list(zip(runs, labels(runs), strict=True))
    return [
        Chart(
            metric,
            "optimizer step",
            [
                Series(name, colour(i, len(runs)), _thinned(curve))
                for i, (run, name) in enumerate(named)
                if (curve := run.curves.get(metric))
            ],
        )
        for metric in drawable(runs)
    ]


def as_json(charts: list[Chart]) -> str:
    """For a script element of HTML."""
    return json.dumps([asdict(chart) for chart in charts]).replace("<", "\\u003c")


def _thinned(curve: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """Every n-th point, and always the last."""
    finite = [(float(step), value) for step, value in curve if abs(value) < float("inf")]
    each = max(len(finite) // _MOST_POINTS, 1)
    return finite[::-1][::each][::-1]
