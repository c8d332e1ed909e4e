"""Commands that train, and compare runs."""

from __future__ import annotations

import sys
from contextlib import suppress
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
    watch: Annotated[
        bool, typer.Option("--watch", help="serve the page to this machine and follow the runs, until Ctrl+C")
    ] = False,
    port: Annotated[int, typer.Option(help="port for --watch; 0: one that is free")] = 0,
) -> None:
    """Compare runs: the settings in which they differ, their final metrics, curves and pictures."""
    if not watch:
        from tubelet.report.page import report

        print(report(runs, out))
        return
    if out is not None:
        raise ValueError("--watch serves the page and writes no file: leave --out away")
    from tubelet.report.watch import Watch

    with Watch(runs, port) as server:
        print(f"{server.address}  (Ctrl+C ends it)", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
