"""Prints the settings that were chosen for a small data set, and the reasons."""

from __future__ import annotations

import lightning as L
from rich.console import Console

from tubelet.data.small_data import explain


class ExplainSmallData(L.Callback):
    """Args: manifest: the list of training videos. pretraining: or else fine-tuning."""

    def __init__(self, manifest: str, pretraining: bool = False) -> None:
        self.manifest, self.pretraining = manifest, pretraining

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            Console().print(explain(self.manifest, self.pretraining))
