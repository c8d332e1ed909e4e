"""Supervised classification: fine-tuning, training from scratch, and testing as the papers do.

The recipe is VideoMAE's fine-tuning (https://arxiv.org/abs/2203.12602). Label smoothing, mixup and cutmix are in this
file; layer-wise learning rates in tubelet.optim; drop path in the encoder; RandAugment, erasing and repeats in the
data. Mixup and cutmix are timm's and treat all frames of a clip alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from tubelet.data.dataset import NO_LABEL, Batch, EvaluationVideos
from tubelet.data.manifest import Manifest
from tubelet.data.randomness import key, seeded
from tubelet.evaluate.gather import gather_rows
from tubelet.evaluate.views import figures, mean_of_views, recall, write_predictions
from tubelet.methods.base import Method, Plan, StepResult
from tubelet.methods.labels import check_known, check_training, count_classes, match_names, warn_missing
from tubelet.methods.parts import data_of
from tubelet.models.classifier import VideoClassifier
from tubelet.optim.adamw import AdamW


class Classification(Method):
    """Args, in addition to those of every method:
        from_weights: whether the run needs pretrained weights; the config is refused without them.
        label_smoothing: of the training labels, in [0, 1).
        mixup, cutmix: alpha of each; 0: off. If both are on, each batch uses one of them, with probability 1/2.
        class_balanced: weight the training loss of each class by the inverse of its number of videos, with mean 1.

    Logs val/top1, val/top5 (with more than five classes) and val/mean_class, the mean of the accuracies per class.
    `confusion` holds the counts [true,guessed] of the last validation or test.
    """

    model: VideoClassifier
    trains = VideoClassifier
    learns_labels = True
    monitor = "val/top1"

    def __init__(
        self,
        model: VideoClassifier,
        model_config: dict[str, Any],
        optim: AdamW,
        plan: Plan,
        from_weights: bool = True,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        class_balanced: bool = False,
    ) -> None:
        super().__init__(model, dict(model_config), optim, plan)
        classes = model.num_classes
        if classes < 2:
            raise ValueError(f"classification needs at least 2 classes, got {classes}")
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"method.label_smoothing must lie in [0, 1), got {label_smoothing}")
        if mixup < 0 or cutmix < 0:
            raise ValueError(f"method.mixup and method.cutmix must not be negative, got {mixup} and {cutmix}")
        self.from_weights, self.label_smoothing, self.class_balanced = from_weights, label_smoothing, class_balanced
        self.mixer = None  # timm's Mixup applies the label smoothing itself
        if mixup > 0 or cutmix > 0:
            from timm.data.mixup import Mixup  # timm is slow to import, and probes do without

            self.mixer = Mixup(mixup, cutmix, label_smoothing=label_smoothing, num_classes=classes)
        self.class_weight: Tensor | None = None
        self.accuracy = MetricCollection({"top1": MulticlassAccuracy(classes, average="micro")})
        if classes > 5:
            self.accuracy.add_metrics({"top5": MulticlassAccuracy(classes, top_k=5, average="micro")})
        self.count = MulticlassConfusionMatrix(classes)
        self._named: set[str] = set()  # splits whose class names have been compared with the model's
        self.tested: list[tuple[Tensor, Tensor, Tensor]] = []  # index, label, probabilities of each batch

    def setup(self, stage: str) -> None:
        """Check the labels before the first step, and take over the names of the classes."""
        data, classes = data_of(self.trainer), self.model.num_classes
        for split, dataset in data.datasets.items():
            name = f"data.{split} {data.paths[split]}"
            if split not in self._named:  # Lightning sets up once per stage
                self._named.add(split)
                dataset.manifest = self._match_names(dataset.manifest, name)
            names = self.model.id2label
            if split == "test":
                check_known(dataset.manifest, name, classes)
                continue
            counts = count_classes(dataset.manifest, name, classes)
            if split == "train":
                check_training(counts, name, names)
                if self.class_balanced:
                    self.class_weight = counts.sum() / (classes * counts.float())
            else:
                warn_missing(counts, name, names)

    def _match_names(self, manifest: Manifest, where: str) -> Manifest:
        """The manifest with the model's own class numbers. A model without class names takes those of the manifest.

        Raises ValueError if the manifest names classes that the model does not have.
        """
        names, known = manifest.class_names(), self.model.id2label
        if names is None:
            return manifest
        if known is not None:
            numbers = match_names(names, known, where)
            return manifest if numbers == list(range(len(names))) else manifest.relabelled(numbers)
        if len(names) != self.model.num_classes:
            raise ValueError(f"{where}: labels.txt names {len(names)} classes, the model has {self.model.num_classes}")
        self.model.id2label = dict(enumerate(names))
        self.model_config["id2label"] = self.model.id2label
        return manifest

    def step(self, batch: Batch) -> StepResult:
        if not self.training:
            return self._evaluate(batch)
        batch, target, smoothing = self._mix(batch)
        logits = self.model(batch.clip)
        return StepResult(self.model.loss(logits, target, smoothing, self._weight()), len(batch))

    def _mix(self, batch: Batch) -> tuple[Batch, Tensor, float]:
        """The batch, its targets, and the label smoothing that the loss must still apply (mixup applies its own)."""
        if self.mixer is None:
            return batch, batch.label, self.label_smoothing
        if len(batch) % 2:
            raise ValueError(
                f"mixup and cutmix pair the clips of a device, and {len(batch)} is odd: see data.batch_size"
            )
        step = self.trainer.fit_loop.total_batch_idx
        with seeded(key(self.plan.seed, "mixup", step, self.global_rank)):
            # timm mixes images: with frames as channels, all frames of a clip are mixed and cut alike
            mixed, target = self.mixer(batch.clip.flatten(1, 2), batch.label)  # [B,C*T,H,W], [B,classes]
        return replace(batch, clip=mixed.view_as(batch.clip)), target, 0.0

    def _weight(self) -> Tensor | None:
        if self.class_weight is not None:
            self.class_weight = self.class_weight.to(self.device)  # copied once: the host waits for such a copy
        return self.class_weight

    def _evaluate(self, batch: Batch) -> StepResult:
        logits = self.model(batch.clip)
        self._count(logits, batch.label)
        return StepResult(self.model.loss(logits, batch.label), len(batch))

    def _count(self, logits: Tensor, label: Tensor) -> None:
        self.accuracy.update(logits, label)
        self.count.update(logits, label)

    def on_validation_epoch_start(self) -> None:
        self.accuracy.reset()
        self.count.reset()

    def on_validation_epoch_end(self) -> None:
        self.confusion = self.count.compute().cpu()  # of all ranks
        found = {name: float(value) for name, value in self.accuracy.compute().items()}
        found["mean_class"] = float(recall(self.confusion).nanmean())
        self.log_dict({f"val/{name}": value for name, value in found.items()}, prog_bar=True, sync_dist=True)

    # ---- testing ----

    def test_step(self, batch: Batch, batch_index: int) -> None:
        probabilities = mean_of_views(self.model(batch.clip), batch.views)  # [videos,classes]
        self.tested.append((batch.index[:: batch.views], batch.label[:: batch.views], probabilities))

    def on_test_epoch_end(self) -> None:
        """Gather each video once from all ranks, compute the figures, and write predictions.parquet."""
        nothing = torch.zeros(0, dtype=torch.int64, device=self.device)
        empty = (nothing, nothing, torch.zeros(0, self.model.num_classes, device=self.device))
        mine = [torch.cat(rows) for rows in zip(empty, *self.tested, strict=True)]
        self.tested.clear()
        index, label, probabilities = (gather_rows(rows, self.trainer.strategy).cpu() for rows in mine)
        order = index.argsort()
        index, label, probabilities = index[order], label[order], probabilities[order]
        assert len(index.unique()) == len(index), "a video was tested twice"
        known = label != NO_LABEL
        found: dict[str, float] = {"videos": float(len(index))}
        if known.any():
            found |= figures(probabilities[known], label[known], self.plan.seed)
            self.confusion = self._confusion(probabilities[known].argmax(1), label[known])
        self.log_dict({f"test/{name}": value for name, value in found.items()}, sync_dist=True)
        if self.trainer.is_global_zero:
            data = data_of(self.trainer)
            dataset = data.datasets["test"]
            assert isinstance(dataset, EvaluationVideos)
            videos = [dataset.manifest.record(i).path for i in index.tolist()]
            labels = [None if one == NO_LABEL else one for one in label.tolist()]
            write_predictions(data.run_dir / "predictions.parquet", videos, labels, probabilities, dataset.views)

    def _confusion(self, guess: Tensor, label: Tensor) -> Tensor:
        classes = self.model.num_classes
        return torch.bincount(label * classes + guess, minlength=classes**2).view(classes, classes)
