"""The common form of all files of weights: a model described as plain data, and its weights under our names."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tubelet.nodes import Node

State = dict[str, Tensor]


@dataclass(frozen=True)
class Source:
    """name: the file or directory, for messages.
    node: the description of the model; an argument is None if the file lacks it and there is no safe default.
    state: the weights under our names, those of the encoder under `encoder.`.
    masking: the node of the masking that the weights were trained with, if it is known.
    """

    name: str
    node: Node
    state: State
    masking: Node | None = None

    @property
    def encoder(self) -> Node:
        """The encoder's node."""
        return self.node.get("encoder", self.node)


def read_torch_file(path: Path) -> Any:
    """The contents of a `torch.save` file, on the CPU. Raises ValueError for more than tensors and plain data."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain data; loading it could run code of whoever wrote it: refused. "
            f"({str(error).splitlines()[0]})"
        ) from error


def clean_keys(state: State) -> State:
    """The weights with names without the prefixes of training wrappers: `module.`, `backbone.`, `_orig_mod.`."""
    clean: State = {}
    for key, value in state.items():
        short = key.replace("_orig_mod.", "")
        while short.startswith(("module.", "backbone.")):
            short = short.partition(".")[2]
        clean[short] = value
    return clean
