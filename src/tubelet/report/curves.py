"""Curves of several runs in one picture. For a sweep, also the last metric against the value that was swept."""

from __future__ import annotations

import io
from typing import Any

from tubelet.report.table import Run, short_key, short_value, swept_keys, varied

METRICS = ("train/loss", "val/loss", "val/knn_top1", "val/top1", "val/map", "val/r2")


def draw_curves(groups: dict[str, list[Run]], ends: bool = True) -> bytes:
    """A PNG with a row per group. A row has a panel per metric of METRICS that any run of the group has logged, and a
    panel has a line per run. If exactly one numeric key was swept (over any number of seeds), a second row shows the
    last value of each metric against this key, unless `ends` is false.

    Raises ValueError if no run has logged any of METRICS.
    """
    from matplotlib.figure import Figure

    drawn = {name: runs for name, runs in groups.items() if drawable(runs)}
    if not drawn:
        raise ValueError(f"no run has logged any of {', '.join(METRICS)} yet")
    heights = [2 if ends and swept(runs) else 1 for runs in drawn.values()]
    width = max(len(drawable(runs)) for runs in drawn.values())
    figure = Figure(figsize=(5 * width, 4 * sum(heights)), layout="constrained")
    parts = figure.subfigures(len(drawn), 1, squeeze=False, height_ratios=heights)
    for (row,), (name, runs) in zip(parts, drawn.items(), strict=True):
        if len(drawn) > 1:
            row.suptitle(name, fontweight="bold")
        _draw(row, runs, ends)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    return picture.getvalue()


def _draw(figure: Any, runs: list[Run], ends: bool) -> None:
    import matplotlib

    metrics, key, names = drawable(runs), swept(runs) if ends else None, labels(runs)
    panels = figure.subplots(2 if key else 1, len(metrics), squeeze=False)
    colours = matplotlib.colormaps["viridis"]
    for axes, name in zip(panels[0], metrics, strict=True):
        for i, run in enumerate(runs):
            if curve := run.curves.get(name):
                steps, values = zip(*curve, strict=True)
                style = "-" if name.startswith("train") else "o-"
                colour = colours(0.9 * i / max(len(runs) - 1, 1))
                axes.plot(steps, values, style, color=colour, label=names[i], linewidth=1.2, markersize=3)
        axes.set(title=name, xlabel="optimizer step")
        axes.grid(alpha=0.3)
    if len(runs) <= 30:  # beside the curves, not on them
        handles, shown = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, shown, loc="outside lower center", ncols=len(metrics) + 1, fontsize="small")
    if key:
        for axes, name in zip(panels[1], metrics, strict=True):
            _draw_ends(axes, runs, key, name)


def drawable(runs: list[Run]) -> list[str]:
    """The metrics of METRICS that any run has logged."""
    return [name for name in METRICS if any(run.curves.get(name) for run in runs)]


def swept(runs: list[Run]) -> str | None:
    """The key that differs between the runs, if there is exactly one besides the seed and its values are numbers."""
    keys = [key for key in varied(runs) if key != "seed"]
    numbers = len(keys) == 1 and all(isinstance(run.config.get(keys[0]), int | float) for run in runs)
    return keys[0] if numbers else None


def labels(runs: list[Run]) -> list[str]:
    """The keys and values that were swept, if there are at most two; else the names of the runs, and behind a mere
    number the values of up to four keys.
    """
    keys = [*swept_keys(runs), *(key for key in varied(runs) if key.endswith("seed"))]
    if 1 <= len(keys) <= 2:
        return [", ".join(f"{short_key(key)}={short_value(key, run.config.get(key))}" for key in keys) for run in runs]
    values = [", ".join(short_value(key, run.config.get(key)) for key in keys[:4]) for run in runs]
    return [
        f"{run.name}: {said}" if said and run.name.isdigit() else run.name
        for run, said in zip(runs, values, strict=True)
    ]


def _draw_ends(axes: Any, runs: list[Run], key: str, name: str) -> None:
    """A point per finished run, and a line through the mean of each value."""
    ends: dict[float, list[float]] = {}
    for run in runs:
        if run.finished and name in run.summary:
            ends.setdefault(run.config[key], []).append(run.summary[name])
    for x, values in ends.items():
        axes.plot([x] * len(values), values, "o", color="black", markersize=4)
    axes.plot(sorted(ends), [sum(ends[x]) / len(ends[x]) for x in sorted(ends)], "-", color="grey")
    axes.set(xlabel=key, ylabel=f"{name} at the end")
    axes.grid(alpha=0.3)
