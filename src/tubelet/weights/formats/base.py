"""The protocol of a file format: whether it can read a file, how it reads it, and how it writes a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from tubelet.nodes import Node
from tubelet.weights.source import Source, State


@dataclass(frozen=True)
class Found:
    """A directory with a config.json, or the contents of a file of weights.

    weights: the file of the directory that holds the weights; None: the one that its format prescribes.
    """

    path: Path
    contents: Any = None
    weights: Path | None = None

    @property
    def is_directory(self) -> bool:
        return self.contents is None


@dataclass(frozen=True)
class Files:
    """The contents of the files of a model: weights, config.json, and preprocessor_config.json."""

    state: State
    config: Node
    processor: Node


class CannotHold(ValueError):
    """A format has no place for a part of a model, or for a setting of it."""


class Format(Protocol):
    """A format that can be read. Each format is one file of this folder."""

    def reads(self, found: Found) -> bool:
        """Whether the file has this format. Its contents are not checked yet."""

    def read(self, found: Found) -> Source:
        """Read the file. Raises ValueError, naming the file, if its contents are not valid in this format."""


class Writer(Format, Protocol):
    """A format that can be written, too."""

    def write(self, model: nn.Module) -> Files:
        """The contents of all files of the model. Raises CannotHold naming what the format has no place for."""
