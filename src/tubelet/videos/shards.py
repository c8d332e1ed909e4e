"""One manifest shared out among several machines, and put together again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tubelet.data.manifest import COLUMNS, SEGMENT_COLUMNS, Manifest
from tubelet.data.shard import shard_of
from tubelet.storage import replacing


def take_shard(manifest: Manifest, shard: str) -> Manifest:
    """The i-th of n runs of lines, for `shard` "i/n" with i from 0 to n - 1: merged in order they are the whole."""
    part = shard_of(len(manifest), shard)
    return Manifest(manifest.root, manifest.table.slice(part.start, len(part)))


def merge(files: Sequence[str | Path], out: str | Path) -> Manifest:
    """Writes to `out` every video (or segment of one) that any of the manifests lists, once, in order of first
    appearance; what one leaves open another may fill in. Raises ValueError if two contradict each other. Merging again
    changes nothing.
    """
    manifests, target = [Manifest.read(file) for file in files], Path(out).absolute()
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for manifest in manifests:
        columns = [manifest.table[name].to_pylist() for name in COLUMNS]
        for values in zip(*columns, strict=True):
            row = dict(zip(COLUMNS, values, strict=True))
            relative = not os.path.isabs(row["path"])
            path = os.path.normpath(os.path.join(manifest.root, row["path"]))
            row["path"] = os.path.relpath(path, target.parent) if relative else path
            _fill_in(rows.setdefault((path, *(row[name] for name in SEGMENT_COLUMNS)), row), row)
    copy_labels([manifest.root for manifest in manifests], target.parent)
    merged = Manifest.from_columns(target.parent, {name: [row[name] for row in rows.values()] for name in COLUMNS})
    merged.write(target)
    return merged


def copy_labels(sources: Iterable[Path], directory: Path) -> None:
    """`labels.txt` goes where the manifest goes. Raises ValueError if there are two that differ."""
    target = directory / "labels.txt"
    for source in {source / "labels.txt": None for source in sources}:
        if source.is_file():
            if not target.exists():
                directory.mkdir(parents=True, exist_ok=True)
                with replacing(target, concurrent=True) as temporary:
                    shutil.copyfile(source, temporary)
            elif target.read_bytes() != source.read_bytes():
                raise ValueError(f"{source} and {target} name different classes")


def _fill_in(row: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in other.items():
        if name == "path" or value is None:
            continue
        if row[name] is None:
            row[name] = value
        elif row[name] != value:
            raise ValueError(f"{row['path']}: one manifest gives {name} {row[name]}, another {value}")
