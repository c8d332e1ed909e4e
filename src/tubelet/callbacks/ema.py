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

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self._average_model is not None  # copied in `setup`, before the model had moved
        self._average_model.to(pl_module.device)
