"""Work on many files that can be interrupted: what is done is kept beside the result, one JSON line a file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Journal:
    """`file` takes what `add` gives; `files` (default: that one) are read first. An entry counts as long as its video
    has the size and the time of change it had then.
    """

    def __init__(self, file: Path, files: Iterable[Path] | None = None) -> None:
        self.file = file
        self._entries: dict[str, tuple[list[int] | None, dict[str, Any]]] = {}
        for other in [file] if files is None else files:
            if other.exists():
                # a line without its end is one whose writing was interrupted
                for line in other.read_text(encoding="utf-8").splitlines(keepends=True):
                    if line.endswith("\n"):
                        path, stamp, values = json.loads(line)
                        self._entries[path] = stamp, values
        self._start_on_a_new_line()

    def get(self, path: str) -> dict[str, Any] | None:
        stamp, values = self._entries.get(path, (None, None))
        return values if stamp == _stamp(path) else None

    def all(self) -> dict[str, dict[str, Any]]:
        """Every entry by its video, whatever has become of that since."""
        return {path: values for path, (_, values) in self._entries.items()}

    def add(self, path: str, values: dict[str, Any]) -> None:
        self._entries[path] = stamp, _ = _stamp(path), values
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps([path, stamp, values]) + "\n")

    def _start_on_a_new_line(self) -> None:
        if self.file.exists():
            text = self.file.read_bytes()
            if not text.endswith(b"\n"):
                os.truncate(self.file, text.rfind(b"\n") + 1)


def _stamp(path: str) -> list[int] | None:
    """Size in bytes and time of change in ns; None if there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def progress_bar() -> Progress:
    """On stderr, so that stdout has nothing but the lines about problems."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        redirect_stdout=sys.stdout.isatty(),
    )
