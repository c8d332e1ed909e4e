"""The files of weights in a Hugging Face directory: one file, or several with an index."""

from __future__ import annotations

from pathlib import Path

from tubelet.weights.formats.base import Found
from tubelet.weights.source import State, read_json, read_weights

_NAMES = ("model.safetensors", "pytorch_model.bin")


def read_state(found: Found) -> State:
    """The weights of a directory under their own names: of `found.weights` if it is given and is not one of several
    parts, else of model.safetensors or pytorch_model.bin. Raises ValueError naming the directory or a file.
    """
    indices = [index for name in _NAMES if (index := found.path / f"{name}.index.json").is_file()]
    if found.weights is not None and not any(found.weights.name in _parts(index) for index in indices):
        return read_weights(found.weights)
    for name in _NAMES:
        if (found.path / name).is_file():
            return read_weights(found.path / name)
    if not indices:
        raise ValueError(f"{found.path} holds neither {_NAMES[0]} nor {_NAMES[1]}")
    parts = _parts(indices[0])
    if missing := [part for part in parts if not (found.path / part).is_file()]:
        raise ValueError(f"{indices[0]} lists {', '.join(missing)}, and there is no such file: fetch it")
    return {key: value for part in parts for key, value in read_weights(found.path / part).items()}


def _parts(index: Path) -> list[str]:
    return sorted(set(read_json(index)["weight_map"].values()))
