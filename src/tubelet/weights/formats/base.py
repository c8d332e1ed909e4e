"""The protocol of a file format: whether it reads something that was found, what it reads, and what it can write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from tubelet.nodes import Node
from tubelet.weights.source import Source, State


@dataclass(frozen=True)
class Found:
    """A directory with a config.json, or the contents of a file of weights."""

    path: Path
    contents: Any = None

    @property
    def is_directory(self) -> bool:
        return self.contents is None


@dataclass(frozen=True)
class Files:
    """What a model becomes in a directory: weights, config and how pixels are prepared."""

    state: State
    config: Node
    processor: Node


class Format(Protocol):
    """One file of this folder each."""

    def reads(self, found: Found) -> bool:
        """Whether it is of this format; nothing is judged yet."""

    def read(self, found: Found) -> Source:
        """Raises ValueError, naming the file, for what this format does not allow."""


class Writer(Format, Protocol):
    """A format that models can be written in."""

    def write(self, model: nn.Module) -> Files:
        """Raises ValueError naming what the format cannot hold."""
