"""Files of windows' features: npy (with a JSON beside it), safetensors and Arrow. All are written piece by piece from
arrays that may lie on the disk, so that hours of tokens need no memory.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors import safe_open

from tubelet import storage

Columns = Mapping[str, Sequence[np.ndarray]]
"""Each column in pieces, [n,...] one behind the other; all columns are cut at the same rows. `features` is one."""

_ROWS = 256  # rows of an Arrow batch, and of a piece in memory
_SAFETENSORS = {"float16": "F16", "float32": "F32", "float64": "F64", "int32": "I32"}


class Rows:
    """Rows that arrive one after the other, kept in a file of `directory` that ends with this object."""

    def __init__(self, directory: Path) -> None:
        self._file = TemporaryFile(dir=directory)  # noqa: SIM115 (as long as the rows are needed)
        self.count = 0

    def add(self, rows: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(rows).data)
        self.count, self._shape, self._dtype = self.count + len(rows), rows.shape[1:], rows.dtype

    def array(self) -> np.ndarray:
        """All rows [n,...], mapped into memory."""
        self._file.flush()
        return np.memmap(self._file, self._dtype, "r", shape=(self.count, *self._shape))


def write_features(path: Path, columns: Columns, info: Mapping[str, Any]) -> None:
    """Write a file of the kind that its ending names. Atomic: it exists completely or not at all.

    info: what the file says about itself: JSON under `info` in the metadata of safetensors and Arrow; beside a .npy, in
    a .json that also holds the columns that are not `features`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage.replacing(path) as temporary:
        _WRITERS[path.suffix](temporary, columns, info)
        if path.suffix == ".npy":  # before the .npy itself: where that exists, both do
            other = {name: _plain(pieces) for name, pieces in columns.items() if name != "features"}
            storage.write_text(path.with_suffix(".json"), json.dumps({**info, **other}))


def read_info(path: Path) -> dict[str, Any]:
    """The `info` of a file of `write_features`; of a .npy with the other columns."""
    if path.suffix == ".npy":
        return json.loads(path.with_suffix(".json").read_text())
    if path.suffix == ".arrow":
        with pa.memory_map(str(path)) as source:
            return json.loads(pa.ipc.open_file(source).schema.metadata[b"info"])
    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["info"])


class _Mapped(Sequence[np.ndarray]):
    """Arrays of .npy files, opened when they are asked for: there may be more than a process may hold open."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: Any) -> Any:
        return np.load(self.paths[i], mmap_mode="r")


def join_features(path: Path, files: Mapping[str, Path]) -> None:
    """Write the .npy files of several videos, by name, as one. Its column `video` numbers them from 0, in the order of
    `videos` in its info. A .npy of a single video is the same as its part.
    """
    infos = [read_info(file) for file in files.values()]
    columns: dict[str, Sequence[np.ndarray]] = {"features": _Mapped(list(files.values()))}
    for name, kind in (("start", np.float64), ("end", np.float64), ("valid", np.int32)):
        columns[name] = [np.array(info.pop(name), kind) for info in infos]
    if path.suffix == ".npy":
        (info,) = infos
        write_features(path, columns, info)
        return
    columns["video"] = [np.full(len(rows), i, np.int32) for i, rows in enumerate(columns["start"])]
    settings = infos[0]["settings"]
    videos = [{"name": name, **info} for name, info in zip(files, infos, strict=True)]
    for video in videos:
        del video["settings"]
    write_features(path, columns, {"videos": videos, "settings": settings})


def check_file(path: Path) -> None:
    """Raises ValueError unless `write_features` knows the ending."""
    if path.suffix not in _WRITERS:
        raise ValueError(f"cannot write '{path}': the ending must be {', '.join(_WRITERS)}, or none for a directory")


def _write_npy(path: Path, columns: Columns, info: Mapping[str, Any]) -> None:
    features = columns["features"]
    shape = (sum(map(len, features)), *features[0].shape[1:])
    header = {"descr": features[0].dtype.str, "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        _copy(features, file.write)


def _write_safetensors(path: Path, columns: Columns, info: Mapping[str, Any]) -> None:
    """The format of https://github.com/huggingface/safetensors: its own function would need all bytes in memory."""
    header: dict[str, Any] = {"__metadata__": {"info": json.dumps(info)}}
    at = 0
    for name, pieces in columns.items():
        size = sum(piece.nbytes for piece in pieces)
        shape = [sum(map(len, pieces)), *pieces[0].shape[1:]]
        header[name] = {"dtype": _SAFETENSORS[pieces[0].dtype.name], "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for pieces in columns.values():
            _copy(pieces, file.write)


def _write_arrow(path: Path, columns: Columns, info: Mapping[str, Any]) -> None:
    """Features are lists of a fixed size, flattened: `shape` in the metadata is that of one row."""
    shape = columns["features"][0].shape[1:]
    metadata = {"info": json.dumps(info), "shape": json.dumps(shape)}
    kinds = {name: pa.from_numpy_dtype(pieces[0].dtype) for name, pieces in columns.items()}
    kinds["features"] = pa.list_(kinds["features"], int(np.prod(shape)))
    schema = pa.schema(kinds, metadata)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        for pieces in zip(*columns.values(), strict=True):
            for at in range(0, len(pieces[0]), _ROWS):
                rows = dict(
                    zip(columns, (np.ascontiguousarray(piece[at : at + _ROWS]) for piece in pieces), strict=True)
                )
                flat = pa.array(rows.pop("features").reshape(-1))
                arrays = {name: pa.array(values) for name, values in rows.items()}
                arrays["features"] = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(shape)))
                file.write_batch(pa.record_batch([arrays[name] for name in kinds], schema=schema))


def _copy(pieces: Sequence[np.ndarray], write: Callable[[Any], Any]) -> None:
    for piece in pieces:
        for at in range(0, len(piece), _ROWS):
            write(np.ascontiguousarray(piece[at : at + _ROWS]).data)


def _plain(pieces: Sequence[np.ndarray]) -> list[float | None]:
    """As numbers of JSON, which has no NaN."""
    return [None if value != value else value for value in np.concatenate(pieces).tolist()]


_WRITERS: dict[str, Callable[[Path, Columns, Mapping[str, Any]], None]] = {
    ".npy": _write_npy,
    ".safetensors": _write_safetensors,
    ".arrow": _write_arrow,
}
FORMATS = tuple(ending[1:] for ending in _WRITERS)
