"""A manifest lists the videos of a data set: one line a video, kept in Arrow columns, never in Python lists of strings.

Our own format is a CSV with a header: `path` is required, every other column of `COLUMNS` optional (an empty cell means
unknown). The headerless lists `path label` that VideoMAE's users have are read too, in which the label is the last
token, so that a path may hold spaces; `tubelet.data.manifest_text` knows these and their variants. Paths are absolute,
relative to the manifest, or begin with ~. A `labels.txt` beside the manifest names the classes (or the numbers of a
regression), one per line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from tubelet.data.manifest_text import COLUMNS, SCHEMA, complete, lists_as_text, parse, read_text
from tubelet.data.memory_map import open_mapped, parsed_copy
from tubelet.storage import replacing

__all__ = ["COLUMNS", "ONE_CLASS", "Manifest", "Problem", "Record"]

Problem = Literal["single_label_classification", "multi_label_classification", "regression"]
"""What labels can teach, under Hugging Face's names (`problem_type`)."""

ONE_CLASS: Problem = "single_label_classification"
LABEL_COLUMNS: dict[Problem, str] = {
    ONE_CLASS: "label",
    "multi_label_classification": "labels",
    "regression": "values",
}
SEGMENT_COLUMNS = ("start", "end", "start_frame", "end_frame")


@dataclass(frozen=True)
class Record:
    """One line of a manifest; `path` is absolute."""

    path: str
    label: int | None = None
    labels: list[int] | None = None
    values: list[float] | None = None
    start: float | None = None
    end: float | None = None
    start_frame: int | None = None
    end_frame: int | None = None
    num_frames: int | None = None
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    status: str | None = None
    reader: str | None = None

    @property
    def segment(self) -> tuple[float | None, float | None, int | None, int | None]:
        """The values of `SEGMENT_COLUMNS`."""
        return self.start, self.end, self.start_frame, self.end_frame


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
        file = Path(path).expanduser().absolute()
        if not file.is_file():
            raise ValueError(f"{file}: no such manifest")
        return cls(file.parent, *parsed_copy(file, parse))

    @classmethod
    def from_columns(cls, root: str | Path, columns: Mapping[str, Sequence[Any]]) -> Manifest:
        """From values in memory; columns that are not given are unknown. Relative paths are relative to `root`."""
        if unknown := set(columns) - set(COLUMNS):
            raise ValueError(f"unknown manifest columns {sorted(unknown)}; known are {list(COLUMNS)}")
        table = pa.table({name: pa.array(values, COLUMNS[name]) for name, values in columns.items()})
        return cls(Path(root).absolute(), complete(table))

    def __reduce__(self) -> tuple[Any, ...]:
        """A large table goes to another process as the name of its file."""
        if self.mapped is not None:
            return _open, (self.root, self.mapped)
        return Manifest, (self.root, self.table)

    def __len__(self) -> int:
        return len(self.table)

    def record(self, i: int) -> Record:
        values = {name: self.table[name][i].as_py() for name in COLUMNS}
        path = os.path.expanduser(values["path"]) if values["path"].startswith("~") else values["path"]
        return Record(**{**values, "path": os.path.join(self.root, path)})

    def write(self, path: str | Path) -> None:
        """Write our own format, atomically; columns without a single value are left out."""
        file = Path(path).absolute()
        table = self.table
        if file.parent != self.root:  # relative paths must go on meaning the same files
            prefix = os.path.relpath(self.root, file.parent)
            moved = pc.binary_join_element_wise(prefix, table["path"], "/")
            kept = pc.if_else(pc.match_substring_regex(table["path"], "^(/|~)"), table["path"], moved)
            table = table.set_column(0, "path", kept)
        filled = [name for name in COLUMNS if name == "path" or table[name].null_count < len(table)]
        with replacing(file, concurrent=True) as temporary:
            pacsv.write_csv(lists_as_text(table.select(filled)), temporary)

    def relabelled(self, numbers: Sequence[int]) -> Manifest:
        """The same videos, class i replaced by `numbers[i]`; a video without a label has none."""
        one, several = self.table["label"], self.table["labels"]
        columns = {"label": pc.take(pa.array(numbers, pa.int64()), one)}
        if several.null_count < len(several):
            lists = [None if labels is None else [numbers[i] for i in labels] for labels in several.to_pylist()]
            columns["labels"] = pa.array(lists, SCHEMA.field("labels").type)
        table = self.table
        for name, column in columns.items():
            table = table.set_column(table.column_names.index(name), SCHEMA.field(name), column)
        return Manifest(self.root, table)

    def class_names(self) -> list[str] | None:
        """The lines of `labels.txt` beside the manifest. Raises ValueError if a label lies beyond them."""
        file = self.root / "labels.txt"
        if not file.is_file():
            return None
        names = read_text(file).splitlines()
        if self.num_classes > len(names):
            raise ValueError(
                f"{file}: names {len(names)} classes, but the manifest beside it has label {self.num_classes - 1}"
            )
        return names

    @property
    def problem(self) -> Problem | None:
        """What its labels can teach: the first of `LABEL_COLUMNS` with a value; None without labels."""
        filled = (p for p, column in LABEL_COLUMNS.items() if self.table[column].null_count < len(self))
        return next(filled, None)

    @property
    def num_classes(self) -> int:
        """At least so many: one more than the largest label; 0 without labels."""
        columns = (self.table["label"], pc.list_flatten(self.table["labels"]))
        return max((1 + largest for column in columns if (largest := pc.max(column).as_py()) is not None), default=0)

    @property
    def num_values(self) -> int:
        """How many numbers its videos have; 0 without numbers. Raises ValueError if they do not have the same count."""
        counts = [n for n in pc.unique(pc.list_value_length(self.table["values"])).to_pylist() if n is not None]
        if len(counts) > 1:
            given = " or ".join(map(str, sorted(counts)))
            raise ValueError(f"the videos have {given} numbers in the column `values`, all need the same count")
        return counts[0] if counts else 0

    def value_units(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of each number over the videos that have it; the deviation of a constant is 1."""
        columns = [pc.list_element(self.table["values"].drop_null(), i) for i in range(self.num_values)]
        return [pc.mean(c).as_py() for c in columns], [pc.stddev(c).as_py() or 1.0 for c in columns]


def _open(root: Path, mapped: Path) -> Manifest:
    return Manifest(root, open_mapped(mapped), mapped)
