"""Prints the settings that were chosen for a small data set, and the reasons."""

from __future__ import annotations

import lightning as L
from rich.console import Console

from tubelet.data.small_data import Task, explain


class ExplainSmallData(L.Callback):
    """Args: manifest: the list of training videos. task: finetune or pretrain. size: of the frames in pixels."""

    def __init__(self, manifest: str, task: Task = "finetune", size: int | None = None) -> None:
        self.manifest, self.task, self.size = manifest, task, size

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            Console().print(explain(self.manifest, self.task, self.size))
