"""The answer of a sweep as a table: a row per setting, the mean ± standard deviation of its seeds. As text for a talk
or a paper: markdown or LaTeX.
"""

from __future__ import annotations

from math import isfinite, nan
from statistics import mean, stdev

from tubelet.report.headline import has, results
from tubelet.report.table import Run, short_key, short_value, swept_keys

Table = list[list[str]]
"""Rows of equal length; the first one names the columns."""


_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "_%#&${}"},
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--",
        "[": "{[}",  # at the start of a row it would be an argument of the line break before it
    }
)  # fmt: skip


def summary(runs: list[Run]) -> Table:
    """One row per setting of the swept keys. Empty if nothing was swept, or no run has ended."""
    keys, names = swept_keys(runs), results(runs)
    if not keys or not names:
        return []
    settings: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        settings.setdefault(tuple(short_value(key, run.config.get(key)) for key in keys), []).append(run)
    rows = [[*setting, str(len(same)), *(_cell(same, name) for name in names)] for setting, same in settings.items()]
    return [[*map(short_key, keys), "runs", *names], *rows]


def markdown(table: Table) -> str:
    escaped = ([cell.replace("|", r"\|") for cell in row] for row in table)
    head, *rows = (f"| {' | '.join(row)} |" for row in escaped)
    return "\n".join([head, "|---" * len(table[0]) + "|", *rows]) + "\n"


def latex(table: Table) -> str:
    """A tabular of the package booktabs."""
    head, *rows = (" & ".join(map(_escaped, row)) + r" \\" for row in table)
    lines = [r"\begin{tabular}{" + "l" * len(table[0]) + "}", r"\toprule", head, r"\midrule", *rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _cell(runs: list[Run], name: str) -> str:
    values = [run.summary[name] for run in runs if has(run, name)]
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "–"
    spread = stdev(values) if all(map(isfinite, values)) else nan
    return f"{mean(values):.3f} ± {spread:.3f}"


def _escaped(text: str) -> str:
    return text.translate(_LATEX)
