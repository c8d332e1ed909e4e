"""A self-contained HTML file with the table, the curves, and the pictures of each run."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from tubelet.report.curves import draw_curves, drawable
from tubelet.report.table import Run, columns, find_runs, grouped, rows, write_csv
from tubelet.storage import write_bytes, write_text

STYLE = """
body { font: 15px sans-serif; margin: 2em }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { padding: .3em .8em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% }
"""


def report(folder: Path, out: Path | None = None) -> Path:
    """Write a report on every run below `folder` to `out`: `.html`, `.png` or `.csv`. Default: `folder/report.html`.

    Raises ValueError if `out` has another ending, or if there is no run.
    """
    out = folder / "report.html" if out is None else out
    if out.suffix not in (".html", ".png", ".csv"):
        raise ValueError(f"{out}: a report is .html, .png or .csv")
    runs = find_runs(folder)
    if not out.parent.is_dir():
        raise ValueError(f"{out}: there is no directory {out.parent}")
    if out.suffix == ".csv":
        write_csv(runs, out)
    elif out.suffix == ".png":
        write_bytes(out, draw_curves(grouped(runs)))
    else:
        write_text(out, "\n".join(_page(folder, runs)))
    return out


def _page(folder: Path, runs: list[Run]) -> Iterator[str]:
    title = escape(f"{folder.resolve().name}: {len(runs)} run{'s' * (len(runs) > 1)}")
    yield f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>'
    for name, group in grouped(runs).items():
        yield f"<h2>{escape(name)}</h2>"
        yield from _table(rows(group))
        if drawable(group):
            yield _image("curves", draw_curves({name: group}))
        for run in group:
            pictures = sorted(run.path.glob("*/step_*.png"))[-1:] + sorted(run.path.glob("confusion.png"))
            if pictures:
                yield f"<h3>{escape(run.name)}</h3>"
            yield from (_image(path.name, path.read_bytes()) for path in pictures)


def _table(table: list[dict[str, Any]]) -> Iterator[str]:
    names = columns(table)
    yield "<table><tr>" + "".join(f"<th>{escape(name)}</th>" for name in names) + "</tr>"
    for row in table:
        yield "<tr>" + "".join(f"<td>{escape(_short(row.get(name, '')))}</td>" for name in names) + "</tr>"
    yield "</table>"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _image(name: str, png: bytes) -> str:
    return f'<p><img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></p>'
