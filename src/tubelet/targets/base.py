"""The one contract of every target: (clip, mask) -> what the decoder should say of each hidden token."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.masking import Mask


class Target(nn.Module):
    """Built as `target(encoder, preprocess)`: a config leaves these two to the model (`_partial_: true`). A target asks
    the encoder for its sizes, or copies it; the encoder itself must not become a part of it.

    A target that can be seen also defines `to_pixels`: see `Visible`.
    """

    dim: int
    """P, the numbers to predict for each token."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.forward is Target.forward:
            raise TypeError(f"{cls.__qualname__} must define forward(): see tubelet.targets.base.Target")

    def forward(self, clip: Tensor, mask: Mask) -> Tensor:
        """Normalised clip [B,C,T,H,W] -> the truth for `mask.hidden` [B,M,P], at least float32, without a gradient."""
        raise NotImplementedError

    def loss(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """Both [B,M,P] -> scalar; the mean squared error unless a target has its own."""
        return F.mse_loss(prediction.to(truth.dtype), truth)

    def baselines(self, truth: Tensor) -> dict[str, Tensor]:
        """Name -> the loss of a simple prediction, logged beside the validation loss for comparison."""
        return {}

    def after_step(self, encoder: nn.Module, step: int, total: int) -> None:
        """Called after optimizer step `step` (from 1) of `total`: where a moving average of the encoder is updated."""


@runtime_checkable
class Visible(Protocol):
    """A target whose predictions can be drawn."""

    def to_pixels(self, prediction: Tensor, clip: Tensor, mask: Mask) -> Tensor:
        """Predictions [B,M,P] for a normalised clip [B,C,T,H,W] -> pixels in [0, 1], float32 [B,M,p0*p1*p2*C]."""

    @property
    def caption(self) -> str:
        """What a picture says of itself, "reconstructed" for example."""
