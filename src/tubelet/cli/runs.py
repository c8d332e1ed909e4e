"""Commands that train, and compare runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def train(context: typer.Context) -> None:
    """Train, validate or test, as train.py does: `tubelet train experiment=NAME group=choice key=value ...`."""
    from tubelet import launch

    sys.argv = [launch.__file__, *context.args]  # Lightning starts this program again for every other device
    launch.main()


def report(
    runs: Annotated[Path, typer.Argument(help="directory that contains run directories, at any depth")],
    out: Annotated[
        Path | None,
        typer.Option(help="report to write, ending in .html, .png, .csv, .md or .tex; default: RUNS/report.html"),
    ] = None,
) -> None:
    """Compare runs: the settings in which they differ, their final metrics, curves and pictures."""
    from tubelet.report.page import report

    print(report(runs, out))
