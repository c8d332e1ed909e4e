"""Checkpoints of trainer.strategy=fsdp: a directory with a part from every rank. Reading it joins the parts.

PyTorch lists the tensors of all parts in a pickled file. Loading a pickle can run code of its author. We need only
names, sizes and types from it, so our unpickler refuses everything else.
"""

from __future__ import annotations

import pickle
from dataclasses import is_dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch.distributed import checkpoint as dcp

from tubelet.weights.source import State, read_torch_file

_TENSOR_LIST = ".metadata"  # PyTorch's
_OTHER_STATE = "meta.pt"  # Lightning's: all that is not sharded
_DATA = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
"""Their dataclasses and enumerations may occur in the list."""
_KNOWN = {
    "torch": {"Size", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"Path", "PosixPath", "WindowsPath"},
}


def is_sharded(path: Path) -> bool:
    return (path / _TENSOR_LIST).is_file() and (path / _OTHER_STATE).is_file()


def read_sharded(path: Path) -> dict[str, Any]:
    """The same contents as a checkpoint of one file, without the optimizer's state: whole tensors on the CPU."""
    with (path / _TENSOR_LIST).open("rb") as file:
        entries = _Unpickler(file).load().state_dict_metadata
    prefix = "state_dict."
    weights: State = {
        name.removeprefix(prefix): torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in entries.items()
        if name.startswith(prefix)
    }
    dcp.load({"state_dict": weights}, checkpoint_id=path, no_dist=True)
    return {**read_torch_file(path / _OTHER_STATE), "state_dict": weights}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _DATA:
            found = getattr(import_module(module), name, None)
            known = isinstance(found, type) and found.__module__ == module and _holds_data(found)
        else:
            known = name in _KNOWN.get(module, ())
        if not known:
            raise ValueError(f"{module}.{name} does not belong in the list of a sharded checkpoint: refused")
        return super().find_class(module, name)


def _holds_data(cls: type) -> bool:
    return is_dataclass(cls) or issubclass(cls, Enum)
