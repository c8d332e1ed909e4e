"""metrics.csv in the run directory: one row per logged step, one column per metric. A resumed run continues it."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from tubelet import storage
from tubelet.loggers.curves import read_metrics, read_rows

__all__ = ["MetricsCSV", "read_metrics"]

log = logging.getLogger(__name__)


class MetricsCSV(Logger):
    """Each row is appended at once. A new column rewrites the whole file (atomically). Rows that cannot be written, for
    example on a full disk, are kept in memory and written later.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        rows = self._read()
        self.columns = list(rows[0]) if rows else []
        self.rows = len(rows)
        self._waiting: list[dict[str, Any]] = []

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Does nothing, because config.yaml holds the hyperparameters."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._waiting.append({"step": step, **metrics})
        self.rows += 1
        try:
            self._write()
        except OSError as error:
            if len(self._waiting) == 1:
                log.warning("cannot write %s, its rows wait: %s", self.path, error)
        else:
            self._waiting.clear()

    def keep(self, rows: int) -> None:
        """Keep the first `rows` rows. The resumed run logs the steps after them again."""
        kept = self._read()[:rows]
        self.rows = len(kept)
        self._rewrite(self.columns, kept)

    def _write(self) -> None:
        names = dict.fromkeys(name for row in self._waiting for name in row)
        if new := [name for name in names if name not in self.columns]:
            self._rewrite(self.columns + new, self._read())
        lines = io.StringIO()
        csv.DictWriter(lines, self.columns).writerows(self._waiting)
        data = lines.getvalue().encode()
        # unbuffered: a row is in the file when this returns, or the error is raised here
        with self.path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                file.truncate(end)  # no half rows: the next attempt writes all waiting rows again
                raise

    def _read(self) -> list[dict[str, str]]:
        return read_rows(self.path) if self.path.exists() else []

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        with storage.replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        self.columns = columns
