"""A self-contained HTML file with the table, the curves, and the pictures of each run."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from tubelet.report.curves import draw_curves, drawable, labels
from tubelet.report.headline import draw_headline
from tubelet.report.summary import latex, markdown, summary
from tubelet.report.table import Run, columns, find_runs, grouped, rows, write_csv
from tubelet.storage import write_bytes, write_text

STYLE = """
:root { color-scheme: light dark }
body { font: 15px sans-serif; margin: 2em }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { padding: .3em .8em; border-bottom: 1px solid #8884; text-align: right; white-space: nowrap }
th { cursor: pointer }
th:first-child, td:first-child { text-align: left }
img { max-width: 100%; background: white }
.pictures { display: flex; flex-wrap: wrap; gap: 1em }
figure { margin: 0; width: min(30em, 100%) }
figcaption { overflow-wrap: anywhere }
"""
SORT = """
for (const th of document.querySelectorAll("th")) th.onclick = () => {
  const table = th.closest("table"), rows = [...table.querySelectorAll("tr")].slice(1), down = th.dataset.down = th.dataset.down ? "" : "1"
  const text = row => row.cells[th.cellIndex].textContent, number = row => text(row) === "" ? NaN : +text(row)
  rows.sort((a, b) => (isNaN(number(a)) - isNaN(number(b)) || number(a) - number(b) || text(a).localeCompare(text(b))) * (down ? -1 : 1))
  for (const row of rows) row.parentNode.append(row)
}
"""  # noqa: E501
"""A click on the head of a column sorts by it; another one turns the order round."""


def report(folder: Path, out: Path | None = None) -> Path:
    """Write a report on every run below `folder` to `out`: a page (`.html`), its curves (`.png`), a row per run
    (`.csv`), or a row per swept setting (`.md`, `.tex`). Default: `folder/report.html`.

    Raises ValueError if `out` has another ending, if there is no run, or for `.md` and `.tex` if there is no sweep.
    """
    out = folder / "report.html" if out is None else out
    if out.suffix not in (".html", ".png", ".csv", ".md", ".tex"):
        raise ValueError(f"{out}: a report is .html, .png, .csv, .md or .tex")
    runs = find_runs(folder)
    if not out.parent.is_dir():
        raise ValueError(f"{out}: there is no directory {out.parent}")
    if out.suffix == ".csv":
        write_csv(runs, out)
    elif out.suffix == ".png":
        write_bytes(out, draw_curves(grouped(runs)))
    elif out.suffix == ".html":
        write_text(out, "\n".join(_page(folder, runs)))
    else:
        write = markdown if out.suffix == ".md" else latex
        tables = [write(table) for group in grouped(runs).values() if (table := summary(group))]
        if not tables:
            raise ValueError(f"{folder}: no finished runs that differ in a key, so there is nothing to summarise")
        write_text(out, "\n".join(tables))
    return out


def _page(folder: Path, runs: list[Run]) -> Iterator[str]:
    title = escape(f"{folder.resolve().name}: {len(runs)} run{'s' * (len(runs) > 1)}")
    yield f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>'
    for name, group in grouped(runs).items():
        yield f"<h2>{escape(name)}</h2>"
        if headline := draw_headline(group):
            yield f"<p>{_image('result over the swept key', headline)}</p>"
            yield "<p>Mean ± standard deviation over the seeds:</p>"
            head, *lines = summary(group)
            yield from _table([dict(zip(head, line, strict=True)) for line in lines])
            yield "<p>Every run:</p>"
        yield from _table(rows(group))
        if drawable(group):
            yield f"<p>{_image('curves', draw_curves({name: group}, ends=headline is None))}</p>"
        yield from _pictures(group)
    yield f"<script>{SORT}</script>"


def _pictures(runs: list[Run]) -> Iterator[str]:
    """The last pictures (reconstructions or features) and confusion matrices of all runs, side by side."""
    yield '<div class="pictures">'
    for run, name in zip(runs, labels(runs), strict=True):
        for path in sorted(run.path.glob("*/step_*.png"))[-1:] + sorted(run.path.glob("confusion.png")):
            yield f"<figure>{_image(path.name, path.read_bytes())}<figcaption>{escape(name)}</figcaption></figure>"
    yield "</div>"


def _table(table: list[dict[str, Any]]) -> Iterator[str]:
    names = columns(table)
    yield "<table><tr>" + "".join(f"<th>{escape(name)}</th>" for name in names) + "</tr>"
    for row in table:
        yield "<tr>" + "".join(f"<td>{escape(_short(row.get(name, '')))}</td>" for name in names) + "</tr>"
    yield "</table>"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _image(name: str, png: bytes) -> str:
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
