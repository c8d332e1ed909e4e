"""A manifest lists the videos of a data set: one line a video, kept in Arrow columns, never in Python lists of strings.

Two text formats are read. Our own is a CSV with a header: `path` is required, every other column of `COLUMNS` optional
(an empty cell means unknown). The other is the headerless list `path label` that VideoMAE's users have, in which the
label is the last token, so that a path may hold spaces; label -1 means none. Paths are absolute or relative to the
manifest. A `labels.txt` beside the manifest names the classes, one a line.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from tubelet.data.memory_map import open_mapped, parsed_copy

COLUMNS: dict[str, pa.DataType] = {
    "path": pa.string(),
    "label": pa.int64(),  # class number from 0; empty or -1: none
    "start": pa.float64(),  # of a segment, in seconds after the first frame; empty: the video's first frame
    "end": pa.float64(),  # the first moment behind it; empty: the video's end
    "num_frames": pa.int64(),  # frames that can be decoded, not what the container claims
    "fps": pa.float64(),
    "height": pa.int64(),
    "width": pa.int64(),
    "status": pa.string(),  # "ok", or why the file cannot be used
    "reader": pa.string(),  # the reader whose frames are right for this file
}
SCHEMA = pa.schema(list(COLUMNS.items()))


@dataclass(frozen=True)
class Record:
    """One line of a manifest; `path` is absolute."""

    path: str
    label: int | None = None
    start: float | None = None
    end: float | None = None
    num_frames: int | None = None
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    status: str | None = None
    reader: str | None = None


@dataclass(frozen=True)
class Manifest:
    """`table` has exactly the columns of `COLUMNS`; relative paths in it are relative to `root`. `mapped` is the Arrow
    file that a large table lies in.
    """

    root: Path
    table: pa.Table
    mapped: Path | None = None

    @classmethod
    def read(cls, path: str | Path) -> Manifest:
        """Raises ValueError naming the file, and the line if a line is at fault."""
        file = Path(path).absolute()
        if not file.is_file():
            raise ValueError(f"{file}: no such manifest")
        return cls(file.parent, *parsed_copy(file, _parse))

    @classmethod
    def from_columns(cls, root: str | Path, columns: Mapping[str, Sequence[Any]]) -> Manifest:
        """From values in memory; columns that are not given are unknown. Relative paths are relative to `root`."""
        if unknown := set(columns) - set(COLUMNS):
            raise ValueError(f"unknown manifest columns {sorted(unknown)}; known are {list(COLUMNS)}")
        table = pa.table({name: pa.array(values, COLUMNS[name]) for name, values in columns.items()})
        return cls(Path(root).absolute(), _complete(table))

    def __reduce__(self) -> tuple[Any, ...]:
        """A large table goes to another process as the name of its file."""
        if self.mapped is not None:
            return _open, (self.root, self.mapped)
        return Manifest, (self.root, self.table)

    def __len__(self) -> int:
        return len(self.table)

    def record(self, i: int) -> Record:
        values = {name: self.table[name][i].as_py() for name in COLUMNS}
        return Record(**{**values, "path": os.path.join(self.root, values["path"])})

    def write(self, path: str | Path) -> None:
        """Write our own format, atomically; columns without a single value are left out."""
        file = Path(path).absolute()
        table = self.table
        if file.parent != self.root:  # relative paths must go on meaning the same files
            prefix = os.path.relpath(self.root, file.parent)
            moved = pc.binary_join_element_wise(prefix, table["path"], "/")
            kept = pc.if_else(pc.starts_with(table["path"], "/"), table["path"], moved)
            table = table.set_column(0, "path", kept)
        filled = [name for name in COLUMNS if name == "path" or table[name].null_count < len(table)]
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            pacsv.write_csv(table.select(filled), temporary)
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)

    def class_names(self) -> list[str] | None:
        """The lines of `labels.txt` beside the manifest. Raises ValueError if a label lies beyond them."""
        file = self.root / "labels.txt"
        if not file.is_file():
            return None
        names = file.read_text(encoding="utf-8").splitlines()
        if self.num_classes > len(names):
            raise ValueError(
                f"{file}: names {len(names)} classes, but the manifest beside it has label {self.num_classes - 1}"
            )
        return names

    @property
    def num_classes(self) -> int:
        """At least so many: one more than the largest label; 0 without labels."""
        largest = pc.max(self.table["label"]).as_py()
        return 0 if largest is None else largest + 1


def _open(root: Path, mapped: Path) -> Manifest:
    return Manifest(root, open_mapped(mapped), mapped)


def _parse(file: Path) -> pa.Table:
    table = _read_own(file) if "path" in _header(file) else _read_list(file)
    if len(table) == 0:
        raise ValueError(f"{file}: lists no video")
    return table


def _header(file: Path) -> list[str]:
    with open(file, encoding="utf-8-sig", errors="replace", newline="") as lines:
        return next(csv.reader(lines), [])


def _read_own(file: Path) -> pa.Table:
    if unknown := set(_header(file)) - set(COLUMNS):
        raise ValueError(f"{file}: unknown columns {sorted(unknown)}; known are {list(COLUMNS)}")
    options = pacsv.ConvertOptions(column_types=COLUMNS, null_values=[""], strings_can_be_null=True)
    try:
        table = pacsv.read_csv(file, convert_options=options)
    except pa.ArrowInvalid as error:
        raise ValueError(_first_bad_line(file) or f"{file}: {error}") from error
    table = _complete(table)
    if table["path"].null_count or _too_small(table):
        raise ValueError(_first_bad_line(file))
    return table


def _too_small(table: pa.Table) -> bool:
    label, num_frames = pc.min(table["label"]).as_py(), pc.min(table["num_frames"]).as_py()
    return (label is not None and label < 0) or (num_frames is not None and num_frames < 0)


def _first_bad_line(file: Path) -> str | None:
    """Slow and in words: what the Arrow parser, which does not count lines, has stumbled upon."""
    with open(file, encoding="utf-8-sig", newline="") as lines:
        rows = csv.reader(lines)
        header = next(rows)
        for row in rows:
            where = f"{file}, line {rows.line_num}"
            if row and len(row) != len(header):
                return f"{where}: {len(row)} cells under a header of {len(header)}"
            for name, cell in zip(header, row, strict=False):
                if name == "path" and not cell:
                    return f"{where}: the path is empty"
                if name in ("label", "num_frames") and cell.startswith("-") and (name, cell) != ("label", "-1"):
                    return f"{where}: {name} must not be negative, got {cell}"
                try:
                    pa.array([cell or None]).cast(COLUMNS[name])
                except pa.ArrowInvalid:
                    return f"{where}: {name} must be {COLUMNS[name]}, got {cell!r}"
    return None


def _read_list(file: Path) -> pa.Table:
    """`path label` lines, split in Arrow: a million lines cost no Python object each."""
    try:
        text = pa.array([file.read_bytes().decode("utf-8-sig")], pa.large_string())
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is not text: {error}") from error
    lines = pc.utf8_trim_whitespace(pc.split_pattern(text, "\n").flatten()).cast(pa.string())
    if len(lines) and lines[-1].as_py() == "":  # behind the last newline
        lines = lines[:-1]
    pairs = pc.utf8_split_whitespace(lines, max_splits=1, reverse=True)
    good = pc.and_(pc.equal(pc.list_value_length(pairs), 2), pc.match_substring_regex(lines, r"\s(-1|\d{1,18})$"))
    bad = pc.index(good, False).as_py()
    if bad >= 0:
        line = lines[bad].as_py()
        raise ValueError(
            f"{file}, line {bad + 1}: expected `path label` with an integer label "
            f"(or a CSV whose header has a `path` column), got {line[:200]!r}"
        )
    label = pc.list_element(pairs, 1).cast(pa.int64())
    return _complete(pa.table({"path": pc.list_element(pairs, 0), "label": label}))


def _complete(table: pa.Table) -> pa.Table:
    """Every column of `COLUMNS`, in order; label -1 becomes unknown."""
    columns = {
        name: table[name] if name in table.column_names else pa.nulls(len(table), kind)
        for name, kind in COLUMNS.items()
    }
    columns["label"] = pc.if_else(pc.equal(columns["label"], -1), pa.scalar(None, pa.int64()), columns["label"])
    return pa.table(columns, schema=SCHEMA)
