"""`val/knn_top1` during pretraining: it shows whether the features become useful for the labels."""

from __future__ import annotations

import logging
from itertools import islice
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tubelet.data.bad_videos import BadVideos
from tubelet.data.dataset import Batch, EvaluationVideos, collate
from tubelet.data.labels import NO_LABEL
from tubelet.data.manifest import Manifest
from tubelet.data.randomness import generator
from tubelet.data.sampler import EvaluationBatches
from tubelet.evaluate.gather import gather_rows
from tubelet.evaluate.knn import knn_scores, pooled_features
from tubelet.methods.base import Method, method_of
from tubelet.methods.parts import data_of

log = logging.getLogger(__name__)


class KNN(L.Callback):
    """Classifies validation clips by their nearest training clips. Each clip is the middle of its video, without a mask
    and without augmentation. It runs in the validation of every `every_n_epochs`-th epoch and of the last epoch, and in
    `stage=validate`. Videos without a label are left out; if a split has no label at all, a warning says so and nothing
    is logged. It does nothing if the method itself learns labels.

    Args: max_clips: the largest number of videos per split, drawn once with the run's seed; k, temperature,
    standardise: see tubelet.evaluate.knn.
    """

    def __init__(
        self,
        every_n_epochs: int = 10,
        max_clips: int = 2000,
        k: int = 20,
        temperature: float = 0.07,
        standardise: bool = True,
    ) -> None:
        for name, value in (("every_n_epochs", every_n_epochs), ("max_clips", max_clips), ("k", k)):
            if value < 1:
                raise ValueError(f"callbacks.knn.{name} must be at least 1, got {value}")
        if temperature <= 0:
            raise ValueError(f"callbacks.knn.temperature must be positive, got {temperature}")
        self.every_n_epochs, self.max_clips = every_n_epochs, max_clips
        self.vote: dict[str, Any] = {"k": k, "temperature": temperature, "standardise": standardise}

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        method = method_of(trainer)
        if method.learns_labels or not {"train", "val"} <= data_of(trainer).paths.keys():
            return
        last = trainer.global_step >= method.plan.total_steps
        if trainer.state.fn == "fit" and not last and (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        bank, labels = self._features(trainer, method, "train")
        queries, truth = self._features(trainer, method, "val")
        if len(labels) == 0 or len(truth) == 0:
            log.warning("no val/knn_top1: the videos of data.train and data.val need labels")
            return
        classes = int(torch.cat([labels, truth]).max()) + 1
        guess = knn_scores(bank, labels, queries, classes, **self.vote).argmax(1)
        method.log("val/knn_top1", (guess == truth).float().mean(), prog_bar=True, sync_dist=True)

    @torch.no_grad()
    def _features(self, trainer: L.Trainer, method: Method, split: str) -> tuple[Tensor, Tensor]:
        """Features [n,D] and labels [n] of the labelled videos, gathered from all ranks: the same on every rank."""
        features, labels, data = [], [], data_of(trainer)
        limit = trainer.limit_val_batches  # a number of batches, or 1.0: all
        for batch in islice(self._loader(trainer, split), limit if isinstance(limit, int) else None):
            if len(batch) == 0:  # none of its videos could be read
                continue
            batch = data.transfer_batch_to_device(batch, method.device, 0)
            batch = data.on_after_batch_transfer(batch, 0)
            with trainer.precision_plugin.forward_context():
                features.append(pooled_features(method.model.encoder, batch.clip))
            labels.append(batch.label)
        mine = torch.cat(features) if features else torch.zeros(0, method.model.encoder.dim, device=method.device)
        label = torch.cat(labels) if labels else torch.zeros(0, dtype=torch.int64, device=method.device)
        # filtered before gathering: `gather_rows` allows another number of rows on each rank
        mine, label = mine[label != NO_LABEL], label[label != NO_LABEL]
        return gather_rows(mine, trainer.strategy), gather_rows(label, trainer.strategy)

    def _loader(self, trainer: L.Trainer, split: str) -> DataLoader[Batch]:
        """A loader of this rank's batches."""
        data = data_of(trainer)
        manifest = Manifest.read(data.paths[split])  # not data.datasets: `stage=validate` opens no training videos
        dataset = EvaluationVideos(
            manifest,
            data.grid,
            data.sampling,
            seed=data.seed,
            preprocess=data.preprocess,
            reader=data.reader,
            bad_videos=BadVideos(
                data.run_dir / f"bad_videos_{split}.csv", len(manifest), data.max_bad_share, "left out of kNN"
            ),
        )
        chosen = torch.randperm(len(manifest), generator=generator(data.seed, "knn", split))[: self.max_clips].tolist()
        ranks, videos = trainer.world_size, max(1, data.batch_size // trainer.world_size)
        batches = [
            [(epoch, chosen[place]) for epoch, place in slots]
            for slots in EvaluationBatches(len(chosen), videos, rank=trainer.global_rank, ranks=ranks)
        ]
        timeout = data.timeout if data.num_workers else 0  # torch allows a timeout only with workers
        return DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=data.num_workers,
            timeout=timeout,
        )
