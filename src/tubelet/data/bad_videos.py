"""Videos that could not be read: each named once in the log and in one CSV (path,reason), and counted.

The CSV is the only state. All workers, ranks and resumed runs share it through the file system: each locks it, reads
what the others have appended since it last looked, and appends whole lines.
"""

from __future__ import annotations

import csv
import io
import logging
import os
from pathlib import Path
from typing import IO

from tubelet.data.reader import VideoError

try:
    import fcntl
except ImportError:  # Windows: two workers that meet the same video may each list it
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)


class BadVideos:
    """`file` is the CSV, `size` the videos of the data set, `max_share` how many of them, in [0, 1], may fail;
    `consequence` ends the line in the log.
    """

    def __init__(
        self,
        file: str | Path,
        size: int,
        max_share: float,
        consequence: str = "training takes another video in its place",
    ) -> None:
        if not 0.0 <= max_share <= 1.0:
            raise ValueError(f"max_bad_share must lie in [0, 1], got {max_share}")
        self.file, self.size, self.max_share, self.consequence = Path(file), size, max_share, consequence
        self._known: set[str] = set()
        self._read = 0  # bytes of the file that `_known` covers

    def add(self, error: VideoError) -> None:
        """Raises VideoError naming the file and the share once more than `max_share` of the data set has failed."""
        if error.path not in self._known:
            self._note(error.path, error.reason)
        if len(self._known) > self.max_share * self.size:
            raise VideoError(
                error.path,
                f"{error.reason}; {len(self._known)} of {self.size} videos cannot be read, more than the share of "
                f"{self.max_share:g} that data.max_bad_share allows (they are listed in {self.file})",
            ) from error

    def _note(self, path: str, reason: str) -> None:
        """Unless another process has done so. Locked from reading to writing: two workers may meet the same video."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, "a+b", buffering=0) as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            self._catch_up(file)
            if path not in self._known:
                log.warning("cannot read %s (%s): %s", path, reason, self.consequence)
                line = io.StringIO()
                writer = csv.writer(line, lineterminator="\n")
                if file.seek(0, os.SEEK_END) == 0:
                    writer.writerow(["path", "reason"])
                writer.writerow([path, " ".join(reason.split())])
                file.write(line.getvalue().encode())
                self._catch_up(file)

    def _catch_up(self, file: IO[bytes]) -> None:
        file.seek(self._read)
        new = file.read()
        self._read += len(new)
        self._known.update(row[0] for row in csv.reader(io.StringIO(new.decode())) if row and row != ["path", "reason"])
