"""Self-supervised pretraining: a masked autoencoder and its reconstruction loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tubelet.data.dataset import Batch
from tubelet.methods.base import Method, Plan, StepResult
from tubelet.models.mae import MaskedAutoencoder
from tubelet.optim.adamw import AdamW


class Pretraining(Method):
    """mask -> visible = encoder(clip, mask) -> pixels = decoder(visible, mask) -> target -> loss: `MaskedAutoencoder`.

    Validation also logs `val/patch_mean_loss`, the loss of a rival that knows every hidden patch's true mean colour and
    says nothing else: an encoder that has learned anything about shape and motion gets below it.
    """

    model: MaskedAutoencoder
    masked = True

    def __init__(self, model: MaskedAutoencoder, model_config: dict[str, Any], optim: AdamW, plan: Plan) -> None:
        super().__init__(model, model_config, optim, plan)

    def step(self, batch: Batch) -> StepResult:
        output = self.model(batch.clip, batch.mask)
        metrics = (
            {} if self.training else {"patch_mean_loss": patch_mean_loss(output.target, self.model.encoder.in_channels)}
        )
        return StepResult(output.loss, len(batch.clip), metrics)


def patch_mean_loss(target: Tensor, channels: int) -> Tensor:
    """Mean squared error of predicting each patch's own mean: target [B,M,P], P = (p0 p1 p2 c)."""
    pixels = target.unflatten(2, (-1, channels))  # [B,M,p,C]
    return torch.mean((pixels - pixels.mean(2, keepdim=True)) ** 2)
