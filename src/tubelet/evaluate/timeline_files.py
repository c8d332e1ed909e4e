"""Timelines as files: JSON, CSV, or a strip of pictures of the video above the scores of its best classes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tubelet import storage
from tubelet.evaluate.timeline import Timeline, as_csv, as_json_line

_WIDTH, _SHOWN = 12, 12  # width in inches; pictures above the curves


def check_outputs(paths: Sequence[Path], videos: int) -> None:
    """Raises ValueError for an ending that `write_timelines` does not know, or a picture of several videos.
    IsADirectoryError for a directory.
    """
    for path in paths:
        if path.suffix not in (".json", ".csv", ".png"):
            raise ValueError(f"cannot write '{path}': the ending must be .json, .csv or .png")
        if path.suffix == ".png" and videos > 1:
            raise ValueError(f"'{path}' can show one video, got {videos}")
        storage.keep_directory(path)


def write_timelines(timelines: Sequence[Timeline], path: Path, topk: int) -> None:
    """Write `.json` (one line per video), `.csv`, or a `.png` of the only video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        storage.write_bytes(path, draw_strip(timelines[0], topk))
    elif path.suffix == ".csv":
        storage.write_text(path, as_csv(timelines))
    else:
        storage.write_text(path, "".join(as_json_line(each, topk) + "\n" for each in timelines))


def draw_strip(found: Timeline, topk: int = 5) -> bytes:
    """A PNG: pictures at even distances, curves of the `topk` classes with the highest scores, and a bar for each of
    their segments.
    """
    import matplotlib
    from matplotlib.figure import Figure

    best = found.scores.amax(0).topk(min(topk, len(found.labels))).indices.tolist()
    first, end = found.windows[0][0], found.windows[-1][1]
    figure = Figure(figsize=(_WIDTH, 4.2), layout="constrained")
    top, below = figure.subplots(2, 1, height_ratios=[1, 3], sharex=True)
    _draw_pictures(top, found, first, end)
    middles = [(start + stop) / 2 for start, stop, _ in found.windows]
    colours = matplotlib.colormaps["tab10"]
    for place, number in enumerate(best):
        label, colour = found.labels[number], colours(place % 10)
        named = f" {label}"  # a name that begins with _ would be left out
        below.plot(middles, found.scores[:, number].tolist(), "o-", color=colour, label=named, markersize=3)
        for segment in found.segments:
            if segment.label == label:
                below.axvspan(segment.start, segment.end, ymin=0, ymax=0.03, color=colour)
    if found.threshold is not None:
        below.axhline(found.threshold, color="grey", linewidth=0.8, linestyle="--")
    below.set(xlabel="seconds", ylabel="score", xlim=(first, end))
    if not found.numbers:
        below.set_ylim(0, 1)
    below.grid(alpha=0.3)
    texts = figure.legend(loc="outside right center", fontsize="small").get_texts()
    for text in [*texts, figure.suptitle(found.video, fontsize="medium")]:
        text.set_parse_math(False)  # names with $ are no formulas
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    return picture.getvalue()


def _draw_pictures(axes: Any, found: Timeline, first: float, end: float) -> None:
    """Side by side, each where the nearest window with a picture is."""
    count = min(_SHOWN, len(found.pictures))
    width = (end - first) / count
    for place in range(count):
        middle = first + (place + 0.5) * width
        _, picture = min(found.pictures, key=lambda each: abs(each[0] - middle))
        axes.imshow(picture.numpy(), extent=(middle - width * 0.48, middle + width * 0.48, 0, 1), aspect="auto")
    axes.set(ylim=(0, 1), yticks=[])
    axes.tick_params(bottom=False)
    for side in axes.spines.values():
        side.set_visible(False)
