"""`features.json` in a directory of windows' features: how they were made, how long each video is, and both in the
words of ActionFormer (https://github.com/happyharrycn/actionformer_release) and OpenTAD
(https://github.com/sming256/OpenTAD).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tubelet import storage
from tubelet.evaluate.feature_files import read_info

INDEX = "features.json"


def check_index(folder: Path, kind: str, settings: dict[str, Any]) -> None:
    """Raises ValueError if the folder holds features of other settings; notes these if it holds none."""
    file = folder / INDEX
    if not file.exists():
        write_index(folder, kind, settings)
        return
    old = json.loads(file.read_text())["settings"]
    if differ := [name for name, value in settings.items() if old.get(name) != value]:
        changed = ", ".join(f"{name} {old.get(name)}, not {settings[name]}" for name in differ)
        raise ValueError(f"{folder} holds features of other settings ({changed}): delete it, or change --out")


def write_index(folder: Path, kind: str, settings: dict[str, Any]) -> None:
    """Write the index of all finished files `NAME.kind` of the folder, of whatever run or shard."""
    found = sorted(path for path in folder.rglob(f"*.{kind}") if not path.name.startswith("."))
    database = {}
    for path in found:
        info = read_info(path)
        name = path.relative_to(folder).with_suffix("").as_posix()
        database[name] = {key: info[key] for key in ("video", "fps", "duration", "frame")}
    index = {"settings": settings, **_in_their_words(kind, settings), "database": database}
    with storage.replacing(folder / INDEX, concurrent=True) as temporary:
        temporary.write_text(json.dumps(index, indent=1))


def _in_their_words(kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Distances in frames of the database: those of the file, or sampled ones where these have a rate of their own.
    Both take a feature for the middle of its window.
    """
    step = settings["frame_stride"] or 1
    distance, length = settings["stride"] * step, settings["window"] * step
    actionformer = {
        "feat_stride": distance,
        "num_frames": length,
        "default_fps": settings["fps"],
        "file_prefix": None,
        "file_ext": f".{kind}",
    }
    opentad = {"feature_stride": distance, "sample_stride": 1, "offset_frames": length // 2}
    return {"actionformer": actionformer, "opentad": opentad}
