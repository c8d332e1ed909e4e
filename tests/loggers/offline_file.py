"""What an offline run of W&B has written: `run-ID.wandb` is a log of LevelDB that holds protobuf records."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32 * 1024
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Record]:
    data, at, whole = path.read_bytes(), 7, b""  # the first 7 bytes are the header of the file
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # no space for a header: the rest of the block is empty
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole = (b"" if kind in (FULL, FIRST) else whole) + data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (FULL, LAST):
            yield Record.FromString(whole)


def read_offline(run_dir: Path) -> dict[str, Any]:
    """run, config, environment, history (a list of rows), and parts (the summary of each), over all offline runs in
    `run_dir/wandb`: a run that was opened again has several."""
    found: dict[str, Any] = {"config": {}, "environment": None, "history": [], "parts": []}
    for path in sorted(run_dir.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        found["parts"].append({})
        for record in _whole(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                found["run"] = record.run
                found["config"] |= _values(record.run.config.update)
            elif kind == "config":
                found["config"] |= _values(record.config.update)
            elif kind == "summary":
                found["parts"][-1] |= _values(record.summary.update)
            elif kind == "history":
                found["history"].append(_values(record.history.item))
            elif kind == "environment":
                found["environment"] = record.environment
    return found


def _whole(path: Path) -> list[Record]:
    """All records: the process that writes them is not done yet when `wandb.finish` returns."""
    until = time.monotonic() + 60
    while True:
        found = list(records(path))
        if (found and found[-1].WhichOneof("record_type") == "exit") or time.monotonic() > until:
            return found
        time.sleep(0.1)


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
