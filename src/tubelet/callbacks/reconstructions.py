"""Pictures of a fixed validation batch, as PNG and GIF and in W&B: reconstructions, or features as colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from tubelet.data.dataset import Batch, collate
from tubelet.evaluate.feature_colours import feature_colours
from tubelet.evaluate.pictures import reconstruction_labels, save_videos
from tubelet.evaluate.reconstruction import can_reconstruct, reconstruct
from tubelet.masking import Mask
from tubelet.methods.base import method_of
from tubelet.methods.parts import data_of
from tubelet.models.base import VideoModel
from tubelet.models.masked import MaskedModel


class Reconstructions(L.Callback):
    """Draws `reconstructions/*.{png,gif}` of `clips` clips every `every_n_epochs` epochs and when training ends.

    If the target cannot be shown as pixels, `features/*.{png,gif}` shows the encoder's tokens as colours instead
    (tubelet.evaluate.feature_colours). Nothing is drawn if the model has no target.
    """

    def __init__(self, clips: int = 4, every_n_epochs: int = 10) -> None:
        self.clips = clips
        self.every_n_epochs = every_n_epochs
        self.batch: Batch | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose a few clips, evenly spread over the validation list. All pictures show them, with the same masks."""
        data = data_of(trainer)
        if "val" in data.datasets and method_of(trainer).masked:
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
        training = method.training
        method.eval()  # no dropout and no drop path in pictures
        with torch.no_grad(), trainer.precision_plugin.forward_context():  # on every rank: a sharded model needs all
            folder, videos, labels = self._videos(method_of(trainer).model, self.batch.clip, self.batch.mask)
        method.train(training)
        if not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / folder / f"step_{trainer.global_step:07d}"
        strip, film = (save_videos(videos, labels, path.with_suffix(ending)) for ending in (".png", ".gif"))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(folder, [str(strip)], step=None)
                logger.log_video(f"{folder}_film", [str(film)], step=None, format=["gif"])

    @staticmethod
    def _videos(model: VideoModel, clip: Tensor, mask: Mask) -> tuple[str, Sequence[Tensor], Sequence[str]]:
        """The name of the folder, the videos, and the text above each."""
        if can_reconstruct(model):
            assert isinstance(model, MaskedModel)
            result = reconstruct(model, clip, mask)
            return "reconstructions", result[:3], reconstruction_labels(result)
        original = model.preprocess.denormalise(clip.float()).clamp(0, 1).movedim(1, -1)
        return "features", [original, feature_colours(model.encoder, clip)], ["original", "features as colours"]
