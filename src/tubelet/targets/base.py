"""The contract of every target: (clip, mask) -> what the decoder should predict for each hidden token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.masking import Mask
from tubelet.nodes import Described


class Target(nn.Module, Described):
    """Built as `target(encoder, preprocess)`. The model passes these two, so a config sets `_partial_: true`. A target
    may read the encoder's sizes, or keep a copy of it. It must not keep the encoder itself as a submodule, because its
    weights would then be in the model twice.

    A target whose predictions can be drawn also defines `to_pixels`: see `Visible`.
    """

    passed = 2  # see Described

    dim: int
    """P, the numbers to predict per token."""
    can_collapse = False
    """Whether the encoder makes its own truth. Then all features may become alike, because that is easy to predict."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.forward is Target.forward:
            raise TypeError(f"{cls.__qualname__} must define forward(): see tubelet.targets.base.Target")

    def forward(self, clip: Tensor, mask: Mask) -> Tensor:
        """Normalised clip [B,C,T,H,W] -> the true values for `mask.hidden` [B,M,P], at least float32, no gradient."""
        raise NotImplementedError

    def loss(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """Both [B,M,P] -> scalar. The mean squared error, unless a target defines another loss."""
        return F.mse_loss(prediction.to(truth.dtype), truth)

    def baselines(self, truth: Tensor) -> dict[str, Tensor]:
        """Name -> the loss of a simple prediction (a baseline). Logged with the validation loss, to compare."""
        return {}

    def start(self, encoder: nn.Module) -> None:
        """Called once before training, when the encoder has its first weights, unless a file held this target's too.
        Here a moving average starts.
        """

    def after_step(self, encoder: nn.Module, step: int, total: int) -> None:
        """Called after optimizer step `step` (from 1) of `total`. Here a target updates its moving average, if any."""


@runtime_checkable
class Taught(Protocol):
    """A target with encoders that are not trained: tubelet.weights.teachers loads each from its source."""

    sources: Sequence[str]
    teachers: nn.ModuleList


@runtime_checkable
class Visible(Protocol):
    """A target whose predictions can be drawn."""

    def to_pixels(self, prediction: Tensor, clip: Tensor, mask: Mask) -> Tensor:
        """Predictions [B,M,P] for a normalised clip [B,C,T,H,W] -> pixels in [0, 1], float32 [B,M,p0*p1*p2*C]."""

    @property
    def caption(self) -> str:
        """The text above the picture, "reconstructed" for example."""
