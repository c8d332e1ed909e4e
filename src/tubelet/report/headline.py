"""The answer of a sweep in one figure: the result over the swept key. A line per value of another key, a point per run
(the seeds), the mean and its standard deviation, and a map of the means. Further keys make panels.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite, prod
from statistics import mean, stdev
from typing import Any

from tubelet.report.charts import Chart, Map, Series, colour
from tubelet.report.table import Run, short_key, short_value, swept_keys

SCORES = ("top1", "map", "r2")
"""What a probe is judged by: the ends of its columns."""
METRICS = ("test/top1", "val/top1", "val/map", "val/r2", "val/knn_top1", "val/loss")
"""What a run without probes is judged by: the first of these that it has."""
MOST_PANELS = 12
Ends = dict[str, dict[Any, list[float]]]
"""Label of a line -> value of the swept key -> results, one per seed."""


def headline(runs: list[Run]) -> tuple[list[Chart], list[Map]]:
    """A chart per result, and if two keys or more were swept a map of the means of each. More than two keys: one of
    each per value of the others. Empty if no key was swept, or no run has ended; or for runs that are no sweep: more
    than two keys, and more than twelve panels or less than half of their places filled.
    """
    keys, names = swept_keys(runs), results(runs)
    if not keys or not names:
        return [], []
    x = _across(runs, keys)
    others = sorted((key for key in keys if key != x), key=lambda key: -_count(runs, key))
    line, panel_keys = others[:1], others[1:]  # a line per value of the key with the most values
    panels: dict[str, list[Run]] = {}
    for run in runs:
        panels.setdefault(_values(run, panel_keys), []).append(run)
    if panel_keys and not (len(panels) <= MOST_PANELS and _filled(runs, [x, *line], panel_keys)):
        return [], []
    lines = list(dict.fromkeys(_values(run, line) for run in runs))
    charts, maps = [], []
    for name in names:
        for values, group in panels.items():
            title = f"{name}: {values}" if values else name
            if ends := _ends(group, name, x, line):
                charts.append(_chart(ends, x, title, lines))
                maps += [_map(ends, x, title)] if line else []
    return charts, [each for each in maps if _is_grid(each)]


def _values(run: Run, keys: Iterable[str]) -> str:
    return ", ".join(short_value(key, run.config.get(key)) for key in keys)


def _filled(runs: list[Run], axes: list[str], panel_keys: list[str]) -> bool:
    """Whether at least half of the places of all panels have a run: those of a search by chance have not."""
    there = {_values(run, [*axes, *panel_keys]) for run in runs}
    panels = {_values(run, panel_keys) for run in runs}
    return 2 * len(there) >= len(panels) * prod(_count(runs, key) for key in axes)


def _count(runs: list[Run], key: str) -> int:
    return len({repr(run.config.get(key)) for run in runs})


def results(runs: list[Run]) -> list[str]:
    """The columns that answer: those of the probes, else the first of METRICS."""
    columns = list(dict.fromkeys(name for run in runs for name in run.summary))
    of_runs = ("train/", "val/", "test/")
    probed = [name for name in columns if "/" in name and not name.startswith(of_runs) and name.endswith(SCORES)]
    ended = {name for run in runs if run.finished for name in run.summary}
    return probed or [name for name in METRICS if name in ended][:1]


def has(run: Run, name: str) -> bool:
    """Whether a run has the result `name` for good: what is of no probe may change until the run is finished."""
    return name in run.summary and (run.finished or name not in METRICS)


def _across(runs: list[Run], keys: list[str]) -> str:
    """The key of the horizontal axis: numbers before names, then the one with the most values."""

    def rank(key: str) -> tuple[bool, int]:
        return all(_is_number(run.config.get(key)) for run in runs), _count(runs, key)

    return max(keys, key=rank)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ends(runs: list[Run], name: str, x: str, line: list[str]) -> Ends:
    """The results `name` of all runs that have it, as far as they can be drawn."""
    ends: Ends = {}
    for run in runs:
        if has(run, name) and isfinite(run.summary[name]):
            label = _values(run, line)
            place = run.config[x] if _is_number(run.config.get(x)) else short_value(x, run.config.get(x))
            ends.setdefault(label, {}).setdefault(place, []).append(run.summary[name])
    return ends


def _places(ends: Ends) -> list[Any]:
    places = {place for line in ends.values() for place in line}
    return sorted(places, key=lambda place: (isinstance(place, str), place))


def _chart(ends: Ends, x: str, title: str, lines: list[str]) -> Chart:
    places = _places(ends)
    numbers = all(_is_number(place) for place in places)
    series = []
    for label, line in ends.items():
        own = [place for place in places if place in line]
        where = [place if numbers else places.index(place) for place in own]
        series.append(
            Series(
                label or title,
                colour(lines.index(label), len(lines)),  # the same in all panels
                [(at, mean(line[place])) for at, place in zip(where, own, strict=True)],
                spread=[stdev(line[place]) if len(line[place]) > 1 else 0.0 for place in own],
                dots=[(at, value) for at, place in zip(where, own, strict=True) for value in line[place]],
                line=numbers,
            )
        )
    return Chart(title, short_key(x), series, None if numbers else [str(place) for place in places])


def _is_grid(of: Map) -> bool:
    """Whether at least half of the places have a run: those of a search by chance have not."""
    values = [value for row in of.rows.values() for value in row]
    return 2 * sum(value is not None for value in values) >= len(values)


def _map(ends: Ends, x: str, title: str) -> Map:
    places = _places(ends)
    return Map(
        f"{title}, mean",
        [short_key(x), *(str(place) for place in places)],
        {label: [mean(line[place]) if place in line else None for place in places] for label, line in ends.items()},
    )
