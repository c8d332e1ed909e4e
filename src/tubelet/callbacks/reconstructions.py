"""Reconstructions of a fixed validation batch, as PNG and GIF in the run directory and in W&B."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger

from tubelet.data.dataset import Batch, collate
from tubelet.evaluate.pictures import save_reconstructions
from tubelet.evaluate.reconstruction import can_reconstruct, reconstruct
from tubelet.methods.base import method_of
from tubelet.methods.parts import data_of
from tubelet.models.masked import MaskedModel


class Reconstructions(L.Callback):
    """Draws `reconstructions/*.{png,gif}` of `clips` clips every `every_n_epochs` epochs and when training ends.

    Nothing is drawn if the model has no target, or a target that cannot be shown as pixels.
    """

    def __init__(self, clips: int = 4, every_n_epochs: int = 10) -> None:
        self.clips = clips
        self.every_n_epochs = every_n_epochs
        self.batch: Batch | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose a few clips, evenly spread over the validation list. All pictures show them, with the same masks."""
        data = data_of(trainer)
        if "val" in data.datasets and can_reconstruct(method_of(trainer).model):
            dataset = data.datasets["val"]
            chosen = torch.linspace(0, len(dataset) - 1, min(self.clips, len(dataset))).long()
            batch = data.transfer_batch_to_device(
                collate([dataset[0, i] for i in chosen.tolist()]), pl_module.device, 0
            )
            self.batch = data.on_after_batch_transfer(batch, 0)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw(trainer, pl_module)

    def _draw(self, trainer: L.Trainer, method: L.LightningModule) -> None:
        if self.batch is None or self.batch.mask is None:
            return
        model = method_of(trainer).model
        assert isinstance(model, MaskedModel)
        training = method.training
        method.eval()  # no dropout and no drop path in pictures
        with torch.no_grad(), trainer.precision_plugin.forward_context():  # on every rank: a sharded model needs all
            result = reconstruct(model, self.batch.clip, self.batch.mask)
        method.train(training)
        if not trainer.is_global_zero:
            return
        name = f"step_{trainer.global_step:07d}"
        folder = Path(trainer.default_root_dir) / "reconstructions"
        strip = save_reconstructions(result, folder / f"{name}.png")
        film = save_reconstructions(result, folder / f"{name}.gif")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("reconstructions", [str(strip)], step=None)
                logger.log_video("reconstructions_film", [str(film)], step=None, format=["gif"])
