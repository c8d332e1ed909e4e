"""The text of a manifest -> its columns. What is unambiguous is read, whoever wrote it; the rest is refused with the
file, the line and the remedy.

A CSV with a header: commas, tabs or semicolons, capitals and blanks as they come. Without a header, lines of `path
label` (VideoMAE's), `path,label` or `path frames label` (a list of extracted frames, whose number is not needed). A
label is a class number from 0, or a name that `labels.txt` beside the manifest lists; -1 means none. A cell of several
labels or numbers is written `3;7`; `3|7`, `3 7`, `3,7` and `[3, 7]` are read, too, and `[]` is a video of no class.

Two ways lead to the columns: a quick one in Arrow for plain lists, and a careful one, line by line, for all others.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

COLUMNS: dict[str, pa.DataType] = {
    "path": pa.string(),
    "label": pa.int64(),  # class number from 0; empty or -1: none
    "labels": pa.list_(pa.int64()),  # several class numbers (multi-label); empty: unknown
    "values": pa.list_(pa.float64()),  # the numbers of a regression; empty: unknown
    "start": pa.float64(),  # of a segment, in seconds after the first frame; empty: the video's first frame
    "end": pa.float64(),  # the first moment behind it; empty: the video's end
    "start_frame": pa.int64(),  # the same in frames from 0, instead of seconds
    "end_frame": pa.int64(),  # the first frame behind it
    "num_frames": pa.int64(),  # frames that can be decoded, not what the container claims
    "fps": pa.float64(),
    "height": pa.int64(),
    "width": pa.int64(),
    "status": pa.string(),  # "ok", or why the file cannot be used
    "reader": pa.string(),  # the reader whose frames are right for this file
}
SCHEMA = pa.schema(list(COLUMNS.items()))
_LISTS = [name for name, kind in COLUMNS.items() if pa.types.is_list(kind)]

_LARGEST_LABEL = 1_000_000  # a typing error, not a class: every class takes memory in the model's head
_FRAMES = r"\s+\d+$"  # the middle of `path frames label`
_SEVERAL = "several labels of a video stand in the column `labels` of a CSV with a header (path,labels)"
_EXPECTED = "expected `path label` with an integer label (or a CSV whose header has a `path` column)"


def parse(file: Path) -> pa.Table:
    """Every column of `COLUMNS`. Raises ValueError naming the file, and the line if a line is at fault."""
    text = read_text(file)
    first = text.split("\n", 1)[0]
    for delimiter in ",\t;":
        header = _cells(first, delimiter)
        if "path" in (plain := [name.strip().lower() for name in header]):
            if unknown := set(plain) - set(COLUMNS):
                raise ValueError(f"{file}: unknown columns {sorted(unknown)}; known are {list(COLUMNS)}")
            table = _quick_csv(file) if delimiter == "," and header == plain else None
            table = _careful_csv(file, text, delimiter, plain) if table is None else table
            break
    else:
        table = _quick_list(file, text)
        table = _careful_list(file, text) if table is None else table
    if len(table) == 0:
        raise ValueError(f"{file}: lists no video")
    return table


def complete(table: pa.Table) -> pa.Table:
    """Every column of `COLUMNS`, in order; label -1 becomes unknown."""
    columns = {
        name: table[name] if name in table.column_names else pa.nulls(len(table), kind)
        for name, kind in COLUMNS.items()
    }
    columns["label"] = pc.if_else(pc.equal(columns["label"], -1), pa.scalar(None, pa.int64()), columns["label"])
    return pa.table(columns, schema=SCHEMA)


def lists_as_text(table: pa.Table) -> pa.Table:
    """The same columns as CSV can hold them: lists become `3;7`, an empty list `[]`."""
    for name in set(_LISTS) & set(table.column_names):
        cells = pc.binary_join(table[name].cast(pa.list_(pa.string())), ";")
        cells = pc.if_else(pc.equal(pc.list_value_length(table[name]), 0), "[]", cells)
        table = table.set_column(table.column_names.index(name), name, cells)
    return table


def read_text(file: Path) -> str:
    """Raises ValueError naming the line that is not UTF-8."""
    content = file.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{file}: is UTF-16, save it as UTF-8 (iconv -f utf-16 -t utf-8)")
    if b"\0" in content[:1024]:
        raise ValueError(f"{file}: is no list of videos but a binary file, perhaps a video itself")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{file}, line {line}: is not UTF-8 (byte 0x{content[error.start]:02x}): save it as UTF-8, "
            "from Latin-1 say with iconv -f latin1 -t utf-8"
        ) from error


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line.rstrip("\r")], delimiter=delimiter, skipinitialspace=delimiter != ","), [])


def _quick_csv(file: Path) -> pa.Table | None:
    """In Arrow: a million lines cost no Python object each. None if there is anything to think about."""
    kinds = COLUMNS | dict.fromkeys(_LISTS, pa.string())
    options = pacsv.ConvertOptions(column_types=kinds, null_values=[""], strings_can_be_null=True)
    try:
        table = pacsv.read_csv(file, convert_options=options)
        for name in set(_LISTS) & set(table.column_names):
            lists = pc.split_pattern(table[name], ";").cast(COLUMNS[name])
            table = table.set_column(table.column_names.index(name), name, lists)
        table = complete(table)
    except pa.ArrowInvalid:
        return None
    several = pc.list_flatten(table["labels"])
    if set(table.column_names) & {"start_frame", "end_frame"} and _has_frames(table):
        return None
    least = [pc.min(column).as_py() for column in (table["label"], table["start"], table["num_frames"], several)]
    fine = all(value is None or value >= 0 for value in least) and not table["path"].null_count
    finite = pc.all(pc.is_finite(pc.list_flatten(table["values"]))).as_py() in (None, True)
    backwards = pc.any(pc.less_equal(table["end"], pc.fill_null(table["start"], 0.0))).as_py()
    small = _has_small_labels(table["label"]) and _has_small_labels(several)
    return table if fine and finite and small and not backwards else None


def _careful_csv(file: Path, text: str, delimiter: str, header: list[str]) -> pa.Table:
    columns: dict[str, list[object]] = {name: [] for name in header}
    names = _class_names(file)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    next(rows)
    for row in rows:
        where = f"{file}, line {rows.line_num}"
        if not any(cell.strip() for cell in row) and len(row) < 2:
            continue
        if len(row) != len(header):
            raise ValueError(f"{where}: {len(row)} cells under a header of {len(header)}")
        values = {name: _value(where, name, cell.strip(), names) for name, cell in zip(header, row, strict=True)}
        _check_segment(where, values)
        for name, value in values.items():
            columns[name].append(value)
    return complete(pa.table({name: pa.array(values, COLUMNS[name]) for name, values in columns.items()}))


def _has_frames(table: pa.Table) -> bool:
    return any(table[name].null_count < len(table) for name in ("start_frame", "end_frame"))


def _check_segment(where: str, values: dict[str, Any]) -> None:
    given = []
    for start, end, unit in (("start", "end", "seconds"), ("start_frame", "end_frame", "frames")):
        first, behind = values.get(start), values.get(end)
        given.append(first is not None or behind is not None)
        if behind is not None and behind <= (first or 0):
            raise ValueError(f"{where}: {end} must lie behind {start}, got {first or 0:g} to {behind:g} {unit}")
    if all(given):
        raise ValueError(f"{where}: a segment is given in seconds (start, end) or in frames, not in both")


def _value(where: str, name: str, cell: str, names: dict[str, int]) -> object:
    if name == "path" and not cell:
        raise ValueError(f"{where}: the path is empty")
    if not cell or COLUMNS[name] == pa.string():
        return cell or None
    if name in _LISTS:
        parts = [] if cell == "[]" else _parts(cell, names)
        return [_number(where, name, part, names) for part in parts]
    return _number(where, name, cell, names)


def _parts(cell: str, names: dict[str, int]) -> list[str]:
    """The labels or numbers of one cell. A name may hold blanks and commas."""
    plain = cell.removeprefix("[").removesuffix("]").strip()
    separator = r"[;|]" if re.search(r"[;|]", plain) else r"(?!)" if plain in names else r"[,\s]"
    return [part for part in (part.strip().strip("'\"") for part in re.split(separator, plain)) if part]


def _number(where: str, name: str, cell: str, names: dict[str, int]) -> float | int:
    classes = name in ("label", "labels")
    if classes and cell in names:
        return names[cell]
    kind = COLUMNS[name].value_type if name in _LISTS else COLUMNS[name]
    try:
        number = float(cell) if kind == pa.float64() else int(cell.removesuffix(".0"))
    except ValueError:
        raise ValueError(f"{where}: {name} must be {kind}, got {cell!r}{_advice(name, cell, names)}") from None
    if not math.isfinite(number):
        raise ValueError(f"{where}: {name} must be finite, got {cell}")
    if name not in ("values", "end") and number < 0 and (name, number) != ("label", -1):
        raise ValueError(f"{where}: {name} must not be negative, got {cell}")
    if classes and number > _LARGEST_LABEL:
        raise ValueError(f"{where}: label {cell} is no class number: they count from 0 to one less than the classes")
    return number


def _advice(name: str, cell: str, names: dict[str, int]) -> str:
    if name not in ("label", "labels"):
        return ""
    if re.fullmatch(r"[-+]?\d*\.\d+([eE][-+]?\d+)?", cell):
        return ": the numbers of a regression stand in a column `values`"
    if re.fullmatch(r"\[?\d+(\s*[;|,\s]\s*\d+)+\]?", cell):
        return ": several labels stand in a column `labels`"
    if names:
        return f", and is none of the {len(names)} names in labels.txt"
    return ": number the classes from 0, or list their names in labels.txt beside it, one per line"


def _has_small_labels(labels: pa.ChunkedArray) -> bool:
    largest = pc.max(labels).as_py()
    return largest is None or largest <= _LARGEST_LABEL


def _quick_list(file: Path, text: str) -> pa.Table | None:
    """`path label` lines, as `_quick_csv`."""
    whole = pa.array([text], pa.large_string())
    lines = pc.utf8_trim_whitespace(pc.split_pattern(whole, "\n").flatten()).cast(pa.string())
    if len(lines) and lines[-1].as_py() == "":  # behind the last newline
        lines = lines[:-1]
    pairs = pc.utf8_split_whitespace(lines, max_splits=1, reverse=True)
    good = pc.and_(pc.equal(pc.list_value_length(pairs), 2), pc.match_substring_regex(lines, r"\s(-1|\d{1,18})$"))
    if not pc.all(good).as_py():
        return None
    path, label = pc.list_element(pairs, 0), pc.list_element(pairs, 1).cast(pa.int64())
    odd = pc.or_(pc.match_substring_regex(path, r'^"|[,;]$'), pc.match_substring_regex(path, _FRAMES))
    if pc.any(odd).as_py() or not _has_small_labels(label):
        return None
    return complete(pa.table({"path": path, "label": label}))


def _careful_list(file: Path, text: str) -> pa.Table:
    names = _class_names(file)
    paths, labels = [], []
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for number, line in lines:
        where = f"{file}, line {number}"
        meant = next(((p, c) for p, c in _splits(line) if c.lstrip("-").isdigit() or c in names), None)
        if meant is None:
            raise ValueError(f"{where}: {_EXPECTED}, got {line[:200]!r}")
        path, label = meant
        paths.append(path)
        labels.append(_value(where, "label", label, names))
    if paths and all(re.search(_FRAMES, path) for path in paths) and not (file.parent / paths[0]).exists():
        paths = [re.sub(_FRAMES, "", path) for path in paths]  # `path frames label`
    for (number, line), path in zip(lines, paths, strict=True):
        alone = re.sub(r"(\s+\d+)+$", "", path)
        if path != alone and not (file.parent / path).exists() and (file.parent / alone).exists():
            raise ValueError(f"{file}, line {number}: {_SEVERAL}, got {line[:200]!r}")
    return complete(pa.table({"path": pa.array(paths, pa.string()), "label": pa.array(labels, pa.int64())}))


def _splits(line: str) -> Iterator[tuple[str, str]]:
    """What may be path and label: the path is in quotes, or ends at the last blank, comma, semicolon or tab."""
    if match := re.fullmatch(r'"((?:[^"]|"")+)"\s*[,;\s]\s*"?([^",;]+?)"?', line):
        yield match[1].replace('""', '"'), match[2]
    elif not line.startswith('"'):
        for separator in (r"\s*[,;\s]\s*", r"\s*[,;\t]\s*"):
            if match := re.fullmatch(rf"(.*\S){separator}([^,;\t]+?)", line):
                yield re.sub(r"\s*[,;]$", "", match[1]), match[2].strip()


def _class_names(file: Path) -> dict[str, int]:
    """Name -> class number, from `labels.txt` beside the manifest."""
    names = file.with_name("labels.txt")
    return {name: i for i, name in enumerate(read_text(names).splitlines())} if names.is_file() else {}
