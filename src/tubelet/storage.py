"""What is kept on a disk and must survive: a file, or a directory of files, is there as a whole or not at all, and
whether it is still whole can be seen.

Everything is first made under another name (`part`), flushed to the disk and then renamed: `replacing` does that for
any writer, `write_text` and `write_bytes` for what is at hand. What a killed process leaves under that name, `clean`
removes. A checkpoint of one file is torch's zip file with a checksum for each tensor; one of
many files, a directory that the ranks write together, gets a list of checksums (`seal`).
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKSUMS = "checksums.json"
"""In a directory: file -> [bytes, crc32]."""


def part(path: Path) -> Path:
    """Where what will be `path` is written."""
    return path.with_name(f".{path.name}.part")


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives another name to write a file under, which becomes `path` at the end of the block. If the block fails, that
    file is removed, and what was at `path` stays.
    """
    temporary = part(path)
    try:
        yield temporary
        flush(temporary)
        put(temporary, path)
    except BaseException:
        remove(temporary)
        raise


def put(temporary: Path, path: Path) -> None:
    """Rename `temporary`, which has been flushed, to `path`. What was there before is gone only then.

    No directory can replace another in one go: for a moment the old one has another name, from which `clean` brings it
    back.
    """
    old = _old(path)
    if path.is_dir():
        os.replace(path, old)
    os.replace(temporary, path)
    flush(path.parent)
    remove(old)


def clean(directory: Path) -> None:
    """Bring `directory` in order after a process was killed in the middle of anything here."""
    for old in directory.glob(".*.aside"):
        path = old.with_name(old.name[1:].removesuffix(".aside"))
        if not path.exists():
            os.replace(old, path)
        remove(old)
    for leftover in directory.glob(".*.part"):
        remove(leftover)


def remove(path: Path) -> None:
    """If it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """To the disk: a file's contents, or which names a directory holds."""
    windows = os.name == "nt"  # it opens no directories, and flushes only what it may write
    if windows and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksum(file: Path) -> tuple[int, int]:
    """Bytes and crc32."""
    crc = size = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return size, crc


def seal(directory: Path, sums: dict[str, tuple[int, int]]) -> None:
    """Write the list of checksums into a directory whose files have been flushed."""
    file = directory / CHECKSUMS
    file.write_text(json.dumps(sums, indent=1))
    flush(file)
    flush(directory)


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, all of which is read; None: nothing."""
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


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.aside")
