"""The answer of a sweep in one figure: the result over the swept key. A line per value of the other keys, a point per
run (the seeds), the mean and its standard deviation; and for two keys a map of the means.
"""

from __future__ import annotations

from math import isfinite
from statistics import mean, stdev
from typing import Any

from tubelet.report.charts import Chart, Map, Series, colour
from tubelet.report.table import Run, short_key, short_value, swept_keys

SCORES = ("top1", "map", "r2")
"""What a probe is judged by: the ends of its columns."""
METRICS = ("test/top1", "val/top1", "val/map", "val/r2", "val/knn_top1", "val/loss")
"""What a run without probes is judged by: the first of these that it has."""
Ends = dict[str, dict[Any, list[float]]]
"""Label of a line -> value of the swept key -> results, one per seed."""


def headline(runs: list[Run]) -> tuple[list[Chart], list[Map]]:
    """A chart per result, and for two swept keys a map of the means of each. Empty if no key was swept, or no run has
    ended; or if the runs differ in more than three keys, as runs do that are no sweep.
    """
    keys, names = swept_keys(runs), results(runs)
    if not 1 <= len(keys) <= 3 or not names:
        return [], []
    x = _across(runs, keys)
    ends = {name: _ends(runs, name, x, [key for key in keys if key != x]) for name in names}
    charts = [_chart(each, x, name) for name, each in ends.items() if each]
    maps = [_map(each, x, name) for name, each in ends.items() if each] if len(keys) == 2 else []
    return charts, [each for each in maps if _is_grid(each)]


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
        values = [run.config.get(key) for run in runs]
        return all(_is_number(value) for value in values), len(set(map(repr, values)))

    return max(keys, key=rank)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ends(runs: list[Run], name: str, x: str, others: list[str]) -> Ends:
    """The results `name` of all runs that have it, as far as they can be drawn."""
    ends: Ends = {}
    for run in runs:
        if has(run, name) and isfinite(run.summary[name]):
            label = ", ".join(short_value(key, run.config.get(key)) for key in others) or name
            place = run.config[x] if _is_number(run.config.get(x)) else short_value(x, run.config.get(x))
            ends.setdefault(label, {}).setdefault(place, []).append(run.summary[name])
    return ends


def _places(ends: Ends) -> list[Any]:
    places = {place for line in ends.values() for place in line}
    return sorted(places, key=lambda place: (isinstance(place, str), place))


def _chart(ends: Ends, x: str, name: str) -> Chart:
    places = _places(ends)
    numbers = all(_is_number(place) for place in places)
    series = []
    for i, (label, line) in enumerate(ends.items()):
        own = [place for place in places if place in line]
        where = [place if numbers else places.index(place) for place in own]
        series.append(
            Series(
                label,
                colour(i, len(ends)),
                [(at, mean(line[place])) for at, place in zip(where, own, strict=True)],
                spread=[stdev(line[place]) if len(line[place]) > 1 else 0.0 for place in own],
                dots=[(at, value) for at, place in zip(where, own, strict=True) for value in line[place]],
                line=numbers,
            )
        )
    return Chart(name, short_key(x), series, None if numbers else [str(place) for place in places])


def _is_grid(of: Map) -> bool:
    """Whether at least half of the places have a run: those of a search by chance have not."""
    values = [value for row in of.rows.values() for value in row]
    return 2 * sum(value is not None for value in values) >= len(values)


def _map(ends: Ends, x: str, name: str) -> Map:
    places = _places(ends)
    return Map(
        f"{name}, mean",
        [short_key(x), *(str(place) for place in places)],
        {label: [mean(line[place]) if place in line else None for place in places] for label, line in ends.items()},
    )
