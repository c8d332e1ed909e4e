"""An exponential moving average of the weights: validated, and kept in every checkpoint in the weights' place."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.callbacks import EMAWeightAveraging


class EMA(EMAWeightAveraging):
    """Lightning's, on the model's own device. `decay` per optimizer step.

    While training goes on, the raw weights it goes on with are in the checkpoint too.
    """

    averages_weights = True
    """The config is refused where that cannot work: tubelet.config.combinations."""

    def __init__(self, decay: float = 0.9999) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"callbacks.ema.decay must lie in (0, 1), got {decay}")
        super().__init__(decay=decay)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Lightning copies the model here, before it moves it: moved first, the average is on the same device."""
        pl_module.to(trainer.strategy.root_device)
        super().setup(trainer, pl_module, stage)
