"""Atomic writes. A file, or a directory of files, exists completely or not at all, and damage to it can be detected.

Everything is first written under a temporary name (`part`), flushed to the disk and then renamed. `replacing` does so
for any writer, `write_text` and `write_bytes` for data in memory. `clean` removes what a killed process left under a
temporary name. A checkpoint of one file is torch's zip file, with a checksum per tensor. A checkpoint of many files is
a directory that all ranks write together; it gets a list of checksums (`seal`).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKSUMS = "checksums.json"
"""The list of checksums in a directory: file -> [bytes, crc32]."""


def part(path: Path) -> Path:
    """The temporary name under which `path` is written."""
    return path.with_name(f".{path.name}.part")


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: Path, concurrent: bool = False) -> Iterator[Path]:
    """Yields a temporary name to write to. At the end of the block it is renamed to `path`. If the block fails, the
    temporary file is removed, and what was at `path` stays. `concurrent`: several processes may write `path` at once;
    each then has its own temporary name, and the last one wins. Raises IsADirectoryError if `path` is a directory,
    because all that is in it would be lost.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}") if concurrent else part(path)
    try:
        yield temporary
        flush(temporary)
        put(temporary, path)
    except BaseException:
        remove(temporary)
        raise


def put(temporary: Path, path: Path) -> None:
    """Rename `temporary`, which has been flushed, to `path`, and remove what was there before.

    A directory cannot replace another directory in one system call. So the old one is renamed first; if the process is
    killed at that moment, `clean` restores it.
    """
    old = _moved_away(path)
    if path.is_dir():
        os.replace(path, old)
    os.replace(temporary, path)
    flush(path.parent)  # the rename must be on the disk before the old contents are removed
    remove(old)


def clean(directory: Path) -> None:
    """Undo what a killed process has left unfinished in `directory`."""
    for old in directory.glob(".*.aside"):
        path = old.with_name(old.name[1:].removesuffix(".aside"))
        if not path.exists():  # killed between the two renames of `put`
            os.replace(old, path)
        remove(old)
    for leftover in directory.glob(".*.part"):
        remove(leftover)


def remove(path: Path) -> None:
    """Remove a file or directory, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Flush to the disk: the contents of a file, or the names in a directory (without it a rename may be lost)."""
    windows = os.name == "nt"  # Windows opens no directories, and flushes only files that are open for writing
    if windows and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksum(file: Path) -> tuple[int, int]:
    """Size in bytes, and crc32."""
    crc = size = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return size, crc


def seal(directory: Path, sums: dict[str, tuple[int, int]]) -> None:
    """Write the list of checksums into a directory whose files are already flushed."""
    file = directory / CHECKSUMS
    file.write_text(json.dumps(sums, indent=1))
    flush(file)
    flush(directory)


def damage(path: Path) -> str | None:
    """Read all of a checkpoint and return what is wrong with it, or None if it is whole."""
    if not path.exists():
        return "is missing"
    try:
        return _damaged_directory(path) if path.is_dir() else _damaged_file(path)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        return f"cannot be read: {error}"


def _damaged_file(path: Path) -> str | None:
    with zipfile.ZipFile(path) as file:
        record = file.testzip()
    return None if record is None else f"{record}: wrong checksum"


def _damaged_directory(path: Path) -> str | None:
    for name, (size, crc) in json.loads((path / CHECKSUMS).read_text()).items():
        if checksum(path / name) != (size, crc):
            return f"{name}: wrong checksum"
    return None


def _moved_away(path: Path) -> Path:
    """The name of the old `path` while the new one is put in its place. It stands on users' disks: do not change it."""
    return path.with_name(f".{path.name}.aside")
