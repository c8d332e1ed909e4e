"""Checkpoints of trainer.strategy=fsdp: a directory with a part from every rank. Reading it joins the parts.

PyTorch lists the tensors of all parts in a pickled file. Loading a pickle can run code of its author. We need only
names, sizes and types from it, so our unpickler refuses everything else.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed import checkpoint as dcp

from tubelet.weights.source import State, read_torch_file

_TENSOR_LIST, _OTHER_STATE = (
    ".metadata",
    "meta.pt",
)  # PyTorch's list of tensors; Lightning's file of all that is not sharded
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
        if name not in _KNOWN.get(module, ()):
            raise ValueError(f"{module}.{name} does not belong in the list of a sharded checkpoint: refused")
        return super().find_class(module, name)
