"""The report as one HTML file that needs no other: what was swept and what came of it, every run, curves, pictures."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tubelet.report.charts import Chart, Map, as_json, curve_charts
from tubelet.report.curves import draw_curves, labels
from tubelet.report.films import frames_of, media_type, newest_picture
from tubelet.report.headline import headline
from tubelet.report.summary import latex, markdown, summary
from tubelet.report.table import ERROR, Run, columns, find_runs, grouped, rows, write_csv
from tubelet.storage import write_bytes, write_text

Embed = Callable[[bytes], str]
"""A picture -> the address at which the page finds it."""


class _Markup(str):
    """HTML already, which must not be escaped."""


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
        write_text(out, page(folder, body(folder, runs, out.parent, in_page)))
    else:
        write = markdown if out.suffix == ".md" else latex
        tables = [write(table) for group in grouped(runs).values() if (table := summary(group))]
        if not tables:
            raise ValueError(f"{folder}: no finished runs that differ in a key, so there is nothing to summarise")
        write_text(out, "\n".join(tables))
    return out


def page(folder: Path, content: str, follow: float | None = None) -> str:
    """A whole page around `content`. `follow`: it asks for new content every so many seconds."""
    style, *scripts = (_file(name) for name in ("page.css", "charts.js", "page.js"))
    title = escape(folder.resolve().name)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    state = f' data-follow="{follow:g}"' if follow else ""
    return (
        f'<!doctype html><html lang="en"><head>{head}<link rel="icon" href="data:,"><style>{style}</style></head>'
        f'<body{state}><main>{content}</main><p id="following"></p><div id="tip" hidden></div>'
        f"<script>{''.join(scripts)}</script></body></html>\n"
    )


def body(folder: Path, runs: list[Run], beside: Path, embed: Embed) -> str:
    """What is on the page. `beside`: the directory that links to checkpoints start from."""
    title = f"{folder.resolve().name}: {len(runs)} run{'s' * (len(runs) > 1)}"
    parts = [f"<h1>{escape(title)}</h1><p>{escape(_overview(runs))}</p>"]
    for name, group in grouped(runs).items():
        parts.append(f"<h2>{escape(name)}</h2>")
        parts += _section(group, beside, embed)
    return "\n".join(parts)


def in_page(picture: bytes) -> str:
    return f"data:{media_type(picture)};base64,{base64.b64encode(picture).decode()}"


def checkpoints(run: Run) -> list[Path]:
    """Those that a reader may want: the best, and the last."""
    return [path for name in ("best.ckpt", "last.ckpt") if (path := run.path / "checkpoints" / name).exists()]


def _section(runs: list[Run], beside: Path, embed: Embed) -> Iterator[str]:
    charts, maps = headline(runs)
    if charts:
        yield _charts(charts)
        for each in maps:
            yield from _map(each)
        yield "<h3>Mean ± standard deviation over the seeds</h3>"
        head, *lines = summary(runs)
        yield from _table([dict(zip(head, line, strict=True)) for line in lines])
        yield "<h3>Every run</h3>"
    yield from _table(
        [{"run": run.name, "checkpoints": _links(run, beside)} | row for run, row in zip(runs, rows(runs), strict=True)]
    )
    yield from _failures(runs)
    if curves := curve_charts(runs):
        yield f"<h3>Curves</h3>{_charts(curves)}"
    yield from _pictures(runs, embed)


def _overview(runs: list[Run]) -> str:
    states = [run.state.partition(":")[0] for run in runs]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    hours = sum(run.summary.get("device_hours", 0.0) for run in runs)
    return ", ".join(counts) + (f"; {hours:.3g} device hours" if hours else "")


def _failures(runs: list[Run]) -> Iterator[str]:
    """Why runs failed or were stopped: the whole of error.txt, on a click."""
    failed = [run for run in runs if run.state.startswith("failed")]
    if failed:
        yield "<h3>Failed</h3>"
    for run in failed:
        texts = [
            path.read_text(errors="replace")
            for path in [run.path / ERROR, *sorted(run.path.glob(f"*/*/{ERROR}"))]
            if path.exists()
        ]
        summary = f"<summary>{escape(run.name)}: {escape(run.error or '')}</summary>"
        yield f"<details>{summary}<pre>{escape(chr(10).join(texts))}</pre></details>"


def _pictures(runs: list[Run], embed: Embed) -> Iterator[str]:
    """The last reconstructions or features of all runs side by side, then the confusion matrices."""
    films: list[list[str]] = []
    figures = []
    for run, name in zip(runs, labels(runs), strict=True):
        path = newest_picture(run)
        frames = frames_of(path) if path is not None and path.suffix == ".gif" else []
        if path is not None and frames:
            films.append([embed(frame) for frame in frames])
            figures.append(_figure(name, f'data-film="{len(films) - 1}"', films[-1][0], path.parent.name))
        elif path is not None and path.suffix == ".png":
            figures.append(_figure(name, "", embed(path.read_bytes()), path.parent.name))
    if figures:
        yield "<h3>Pictures of the same clips</h3>"
    if films:
        slider = '<input type="range" min="0" value="0" aria-label="frame">'
        yield f'<div class="films" data-films><script type="application/json">{json.dumps(films)}</script>'
        yield f'<p class="controls">{slider} <button>play</button> <output></output></p>'
    yield f'<div class="pictures">{"".join(figures)}</div>' + "</div>" * bool(films)
    matrices = [
        _figure(name, "", embed(path.read_bytes()), "confusion matrix")
        for run, name in zip(runs, labels(runs), strict=True)
        if (path := run.path / "confusion.png").exists()
    ]
    if matrices:
        yield f'<h3>Confusion</h3><div class="pictures">{"".join(matrices)}</div>'


def _figure(name: str, attribute: str, address: str, kind: str) -> str:
    image = f'<img {attribute} alt="{escape(kind)}" src="{address}">'
    return f"<figure>{image}<figcaption>{escape(name)}</figcaption></figure>"


def _charts(charts: list[Chart]) -> str:
    return f'<div class="charts" data-charts><script type="application/json">{as_json(charts)}</script></div>'


def _map(of: Map) -> Iterator[str]:
    values = [value for row in of.rows.values() for value in row if value is not None]
    low, span = min(values), (max(values) - min(values)) or 1.0
    yield f"<h3>{escape(of.title)}</h3>"
    yield '<table class="map"><tr>' + "".join(f"<th>{escape(name)}</th>" for name in of.head) + "</tr>"
    for label, row in of.rows.items():
        cells = (
            "<td></td>" if value is None else f'<td style="--share:{(value - low) / span:.3f}">{value:.3g}</td>'
            for value in row
        )
        yield f"<tr><td>{escape(label)}</td>{''.join(cells)}</tr>"
    yield "</table>"


def _table(table: list[dict[str, Any]]) -> Iterator[str]:
    names = columns(table)
    yield "<table><tr>" + "".join(f"<th>{escape(name)}</th>" for name in names) + "</tr>"
    for row in table:
        yield "<tr>" + "".join(_cell(name, row.get(name, "")) for name in names) + "</tr>"
    yield "</table>"


def _cell(name: str, value: Any) -> str:
    if isinstance(value, _Markup):
        return f"<td>{value}</td>"
    text = escape(f"{value:.4g}" if isinstance(value, float) else str(value))
    if name == "state":
        return f'<td class="reason {text.partition(":")[0]}" title="{text}">{text}</td>'
    return f"<td>{text}</td>"


def _links(run: Run, beside: Path) -> _Markup:
    links = ((path.stem, quote(os.path.relpath(path, beside))) for path in checkpoints(run))
    return _Markup(" ".join(f'<a href="{address}">{name}</a>' for name, address in links))


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text()
