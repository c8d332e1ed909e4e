"""`val/knn_top1` and `val/probe_top1` in pretraining: they show whether the features become useful for the labels."""

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
from tubelet.data.manifest import Manifest
from tubelet.data.randomness import generator
from tubelet.data.sampler import EvaluationBatches
from tubelet.evaluate.gather import gather_rows
from tubelet.evaluate.knn import knn_scores, pooled_features
from tubelet.evaluate.linear import linear_scores
from tubelet.methods.base import Method, method_of
from tubelet.methods.parts import data_of

log = logging.getLogger(__name__)


class KNN(L.Callback):
    """Classifies validation clips by their nearest training clips. Each clip is the middle of its video, without a mask
    and without augmentation. It runs in the validation of every `every_n_epochs`-th epoch and of the last epoch, and in
    `stage=validate`. Videos without a label are left out; if a split has no label at all, one warning says so and
    nothing is read or logged. It does nothing if the method itself learns labels.

    With `probe`, the same features also teach a linear classifier (tubelet.evaluate.linear): `val/probe_top1`. It is
    fitted anew each time, in closed form, and not step by step beside the encoder. So it is what a linear probe of this
    very encoder finds, no gradient can reach the encoder, and there is no state to resume.

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
        probe: bool = False,
    ) -> None:
        for name, value in (("every_n_epochs", every_n_epochs), ("max_clips", max_clips), ("k", k)):
            if value < 1:
                raise ValueError(f"callbacks.knn.{name} must be at least 1, got {value}")
        if temperature <= 0:
            raise ValueError(f"callbacks.knn.temperature must be positive, got {temperature}")
        self.every_n_epochs, self.max_clips, self.probe = every_n_epochs, max_clips, probe
        self.vote: dict[str, Any] = {"k": k, "temperature": temperature, "standardise": standardise}
        self._warned = False

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        method = method_of(trainer)
        if method.learns_labels or not {"train", "val"} <= data_of(trainer).paths.keys():
            return
        last = trainer.global_step >= method.plan.total_steps
        if trainer.state.fn == "fit" and not last and (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        # not of data.datasets: `stage=validate` opens no training videos
        manifests = {split: Manifest.read(data_of(trainer).paths[split]) for split in ("train", "val")}
        if not all(len(_labelled(manifest)) for manifest in manifests.values()):
            self._warn(trainer)
            return
        (bank, labels), (queries, truth) = (self._features(trainer, method, *each) for each in manifests.items())
        if len(labels) == 0 or len(truth) == 0:  # none of the labelled videos could be read
            self._warn(trainer)
            return
        classes = int(torch.cat([labels, truth]).max()) + 1
        scores = {"knn": knn_scores(bank, labels, queries, classes, **self.vote)}
        if self.probe:
            scores["probe"] = linear_scores(bank, labels, queries, classes).to(truth.device)
        for name, score in scores.items():
            top1 = (score.argmax(1) == truth).float().mean()
            method.log(f"val/{name}_top1", top1, prog_bar=True, sync_dist=True)

    def _warn(self, trainer: L.Trainer) -> None:
        if not self._warned and trainer.is_global_zero:
            names = "val/knn_top1 and val/probe_top1" if self.probe else "val/knn_top1"
            log.warning("no %s: the videos of data.train and data.val need labels", names)
        self._warned = True

    @torch.no_grad()
    def _features(self, trainer: L.Trainer, method: Method, split: str, manifest: Manifest) -> tuple[Tensor, Tensor]:
        """Features [n,D] and labels [n] of the labelled videos, gathered from all ranks: the same on every rank."""
        features, labels, data = [], [], data_of(trainer)
        limit = trainer.limit_val_batches  # a number of batches, or 1.0: all
        for batch in islice(self._loader(trainer, split, manifest), limit if isinstance(limit, int) else None):
            if len(batch) == 0:  # none of its videos could be read
                continue
            batch = data.transfer_batch_to_device(batch, method.device, 0)
            batch = data.on_after_batch_transfer(batch, 0)
            with trainer.precision_plugin.forward_context():
                features.append(pooled_features(method.model.encoder, batch.clip))
            labels.append(batch.label)
        mine = torch.cat(features) if features else torch.zeros(0, method.model.encoder.dim, device=method.device)
        label = torch.cat(labels) if labels else torch.zeros(0, dtype=torch.int64, device=method.device)
        return gather_rows(mine, trainer.strategy), gather_rows(label, trainer.strategy)

    def _loader(self, trainer: L.Trainer, split: str, manifest: Manifest) -> DataLoader[Batch]:
        """A loader of this rank's batches."""
        data = data_of(trainer)
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
        labelled = _labelled(manifest)
        order = torch.randperm(len(labelled), generator=generator(data.seed, "knn", split))
        chosen = labelled[order[: self.max_clips]].tolist()
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


def _labelled(manifest: Manifest) -> Tensor:
    """The numbers of the videos that have a label, int64 [n]."""
    return torch.from_numpy(manifest.table["label"].is_valid().to_numpy()).nonzero().flatten()
