"""Large manifests, parsed once and then memory-mapped: all workers, ranks and later runs of a machine share one copy of
their pages, which the system may drop and read again, and a worker that is started afresh is handed a file name.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from tubelet.storage import replacing

log = logging.getLogger(__name__)

VERSION = 3  # of the columns that are written
LARGE = 4 * 2**20  # bytes of text; smaller manifests stay in memory


def parsed_copy(source: Path, parse: Callable[[Path], pa.Table]) -> tuple[pa.Table, Path | None]:
    """`parse(source)`, from an Arrow file beside other caches of this user if that was made of `source` and the
    `labels.txt` beside it as they are; the table and that file. The file is None for a small manifest, and where none
    can be written.
    """
    stat = source.stat()
    if stat.st_size < LARGE:
        return parse(source), None
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tubelet" / "manifests"
    name = hashlib.blake2b(os.fsencode(source), digest_size=12).hexdigest()
    labels = source.with_name("labels.txt")
    named = labels.stat().st_mtime_ns if labels.is_file() else 0
    file = folder / f"{name}-{VERSION}-{stat.st_size}-{stat.st_mtime_ns}-{named}.arrow"
    if not file.exists():
        table = parse(source)
        try:
            _write(table, file)
        except OSError as error:
            log.info("%s is kept in memory: %s", source, error)
            return table, None
        for older in folder.glob(f"{name}-*.arrow"):
            if older != file:
                older.unlink(missing_ok=True)
        del table
        pa.default_memory_pool().release_unused()
    return open_mapped(file), file


def open_mapped(file: Path) -> pa.Table:
    """A table whose columns lie in the file."""
    return pa.ipc.open_file(pa.memory_map(os.fspath(file))).read_all()


def _write(table: pa.Table, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(file, concurrent=True) as temporary,
        pa.OSFile(os.fspath(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
