"""An exponential moving average (EMA) of the weights. It is validated, and checkpoints hold it as the weights."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.callbacks import EMAWeightAveraging


class EMA(EMAWeightAveraging):
    """Lightning's moving average, on the model's own device. `decay`: factor per optimizer step, in (0, 1).

    A checkpoint during training also holds the weights before averaging, from which training continues.
    """

    averages_weights = True
    """tubelet.config.combinations reads this and refuses configs with which averaging cannot work."""

    def __init__(self, decay: float = 0.9999) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"callbacks.ema.decay must lie in (0, 1), got {decay}")
        super().__init__(decay=decay)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Lightning copies the model here, before it moves it to its device. We move it first, so that the copy is on
        the same device.
        """
        pl_module.to(trainer.strategy.root_device)
        super().setup(trainer, pl_module, stage)
