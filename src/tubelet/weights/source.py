"""The common form of all files of weights: a model described as plain data, and its weights under our names."""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import pickle
import re
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tubelet.nodes import Node

State = dict[str, Tensor]


@dataclass(frozen=True)
class Source:
    """name: the file or directory, for messages.
    node: the description of the model; an argument is None if the file lacks it and there is no safe default.
    state: the weights under our names, those of the encoder under `encoder.`.
    masking: the node of the masking that the weights were trained with, if it is known.
    normed: whether the encoder has its last norm, if its node would build one.
    unsupported: why the preparation of pixels that the file asks for cannot be followed, as the text of an error.
        Loading then needs the caller's own `preprocess`.
    """

    name: str
    node: Node
    state: State
    masking: Node | None = None
    unsupported: str | None = None
    normed: bool = True

    @property
    def encoder(self) -> Node:
        """The encoder's node."""
        return self.node.get("encoder", self.node)


def read_weights(path: Path) -> Any:
    """The contents of a safetensors or `torch.save` file, whatever its name is. Raises ValueError naming the file."""
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:9] != b"{" or int.from_bytes(head[:8], "little") >= 1 << 30:  # the length of a header in JSON, then it
        return read_torch_file(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(_damaged(path, error)) from error


def read_json(path: Path) -> Node:
    """A JSON file that holds an object. Raises ValueError naming the file if it holds anything else."""
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(contents, dict):
        raise ValueError(f"{path} must hold an object {{...}}, it holds a {type(contents).__name__}")
    return contents


def read_torch_file(path: Path) -> Any:
    """The contents of a `torch.save` file, on the CPU: tensors, plain data and `_HARMLESS` types.

    Raises ValueError that says what the file is instead, and what to do. Nothing in it runs.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if wrong := _not_weights(head):
        raise ValueError(f"{path} {wrong}")
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if re.search(r"Unsupported operand|invalid load key|Weights only load failed.*not a", str(error)):
            raise ValueError(f"{path} is no file of weights: neither torch.save nor safetensors wrote it") from error
        unsupported = re.search(r"(?:Unsupported|Blocked) \w+[:\s]+(?:GLOBAL )?([\w.]+)|GLOBAL ([\w.]+)", str(error))
        found = next((name for name in unsupported.groups() if name), None) if unsupported else None
        what = f"contains {found}" if found else "contains more than tensors and plain data"
        raise ValueError(
            f"{path} {what}; loading it could run code of whoever wrote it, so it is refused. If you trust the file, "
            "save its weights alone: torch.save({'model': torch.load(path, weights_only=False)['model']}, new_path)"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(_damaged(path, error)) from error


def _damaged(path: Path, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    size = path.stat().st_size
    return f"{path} is damaged or was not copied to its end ({size:,} bytes): fetch it again. ({reason})"


_HARMLESS: list[Any] = [
    argparse.Namespace,  # the original VideoMAE code saves its arguments
    types.SimpleNamespace,
    collections.defaultdict,
    collections.Counter,
    pathlib.PosixPath,
    pathlib.PurePosixPath,
    dict,
    list,
    int,
    float,
]
"""Types of plain data in checkpoints of others. They hold values; none of them runs anything when it is loaded."""


def _not_weights(head: bytes) -> str | None:
    """What a file is that is no `torch.save` file, by its first bytes; None: nothing is known against it."""
    start = head.lstrip()[:64].lower()
    if not head:
        return "is empty: fetch it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer and not the file itself: run `git lfs pull` where it was cloned"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page: the link led to a page and not to the file, download it again"
    return None


TASK_PARTS = ("fc_norm.", "head.")
"""Beginnings of the names of weights that files of an encoder alone may hold, too: what a classifier had after it."""


def clean_keys(state: State) -> State:
    """The weights with names without the prefixes of training wrappers: `module.`, `backbone.`, `_orig_mod.`."""
    clean: State = {}
    for key, value in state.items():
        short = key.replace("_orig_mod.", "")
        while short.startswith(("module.", "backbone.")):
            short = short.partition(".")[2]
        clean[short] = value
    return clean
