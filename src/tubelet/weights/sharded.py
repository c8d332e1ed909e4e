"""Checkpoints of trainer.strategy=fsdp: a directory with a part from every rank, put together when it is read.

PyTorch lists what is in the parts in a pickled file, which could run code of whoever wrote it when it is loaded: ours
reads nothing but names, sizes and types from it, and so checks it.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed import checkpoint as dcp

from tubelet.weights.source import State, read_torch_file

_LIST, _REST = ".metadata", "meta.pt"  # of PyTorch, and of Lightning: all that is not sharded
_KNOWN = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch": {"Size", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"Path", "PosixPath", "WindowsPath"},
}  # fmt: skip


def is_sharded(path: Path) -> bool:
    return (path / _LIST).is_file() and (path / _REST).is_file()


def read_sharded(path: Path) -> dict[str, Any]:
    """What a checkpoint of one file would hold, without the optimizer's state: on the CPU, and whole."""
    with (path / _LIST).open("rb") as file:
        entries = _Unpickler(file).load().state_dict_metadata
    prefix = "state_dict."
    weights: State = {
        name.removeprefix(prefix): torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in entries.items()
        if name.startswith(prefix)
    }
    dcp.load({"state_dict": weights}, checkpoint_id=path, no_dist=True)
    return {**read_torch_file(path / _REST), "state_dict": weights}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _KNOWN.get(module, ()):
            raise ValueError(f"{module}.{name} has no business in the list of a sharded checkpoint: refused")
        return super().find_class(module, name)
