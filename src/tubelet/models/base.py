"""The base class of every model: an encoder, its preprocessing, and the parts that belong to its task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tubelet.clip import ClipGrid
from tubelet.data.labels import Labels
from tubelet.data.transforms import Preprocess
from tubelet.encoders.base import Encoder
from tubelet.nodes import Described, Node


def encoder_of(model: Any) -> Encoder:
    """The encoder of a model; an encoder is returned as it is."""
    return model if isinstance(model, Encoder) else model.encoder


class VideoModel(nn.Module, Described):
    """An encoder, and the parts that a task adds to it.

    Args: encoder: any encoder; preprocess: how pixels are prepared for its weights; it is saved with them.
    """

    def __init__(self, encoder: Encoder, preprocess: Preprocess | None = None) -> None:
        super().__init__()
        encoder.check_contract()
        self.encoder = encoder
        self.preprocess = preprocess or Preprocess()
        self.labels = Labels()
        """What it is told of a video's labels."""

    def settings(self) -> Node:
        """With its parts as they are now: an argument that is a part of the model may have been changed or replaced."""
        given = super().settings() | {"encoder": self.encoder, "preprocess": self.preprocess}
        parts = {name: part for name in given if isinstance(part := getattr(self, name, None), Described)}
        return given | parts

    @property
    def grid(self) -> ClipGrid:
        return self.encoder.grid

    def check_masking(self, masking: Callable[..., Tensor]) -> None:
        """Raises ValueError if it cannot be trained with such masks. masking: `(grid, *, generator) -> bool [N]`."""
        self.encoder.check_masking(masking)

    @property
    def task_parts(self) -> tuple[str, ...]:
        """Names of the parts that belong to this task. They start from random values when the weights come from another
        task, and another task drops them.
        """
        # derived, not listed, so that a new part of a subclass belongs to the task without another line
        own = {name for name, _ in self.named_children()} | {name for name, _ in self.named_parameters(recurse=False)}
        return (*sorted(own - {"encoder"}), *(f"encoder.{part}" for part in self.encoder.task_parts))
