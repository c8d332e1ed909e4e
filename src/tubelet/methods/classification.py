"""Supervised learning of labels: fine-tuning, training from scratch, and testing as the papers do. A label is a class,
several classes, or numbers: tubelet.methods.problems has what differs.

The recipe is VideoMAE's fine-tuning (https://arxiv.org/abs/2203.12602). Label smoothing, mixup and cutmix are in this
file; layer-wise learning rates in tubelet.optim; drop path in the encoder; RandAugment, erasing and repeats in the
data. Mixup and cutmix are timm's and treat all frames of a clip alike.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from tubelet.data.dataset import Batch, EvaluationVideos
from tubelet.data.labels import known
from tubelet.data.manifest import ONE_CLASS, Manifest
from tubelet.data.randomness import key, seeded
from tubelet.evaluate.gather import gather_rows
from tubelet.evaluate.views import mean_of_views, write_predictions
from tubelet.methods.base import Method, Plan, StepResult
from tubelet.methods.freezing import freeze_blocks
from tubelet.methods.labels import match_names
from tubelet.methods.parts import data_of
from tubelet.methods.problems import problem_of
from tubelet.models.classifier import VideoClassifier
from tubelet.optim.adamw import AdamW

log = logging.getLogger(__name__)


class Classification(Method):
    """Args, in addition to those of every method:
        from_weights: whether the run needs pretrained weights; the config is refused without them.
        label_smoothing: of the training labels, in [0, 1).
        mixup, cutmix: alpha of each; 0: off. If both are on, each batch uses one of them, with probability 1/2.
        class_balanced: weight the training loss of each class by the inverse of its number of videos, with mean 1; of
            several labels, their positives by negatives / positives.
        freeze: the embedding and this many blocks of the encoder keep their weights, and need no memory for the
            backward pass; None: everything is trained.

    A regression is trained without label smoothing, mixup and cutmix.

    Logs, of one class, val/top1, val/top5 (with more than five classes) and val/mean_class, the mean of the accuracies
    per class; of several, val/map, the mean average precision; of numbers val/mse, val/mae and val/r2.
    """

    model: VideoClassifier
    trains = VideoClassifier
    learns_labels = True

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
        freeze: int | None = None,
    ) -> None:
        super().__init__(model, dict(model_config), optim, plan)
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"method.label_smoothing must lie in [0, 1), got {label_smoothing}")
        if mixup < 0 or cutmix < 0:
            raise ValueError(f"method.mixup and method.cutmix must not be negative, got {mixup} and {cutmix}")
        self.problem = problem_of(model.labels)
        self.monitor, self.by_class_columns = f"val/{self.problem.score}", self.problem.columns
        self.numbers = model.problem == "regression"
        if self.numbers and (label_smoothing or mixup or cutmix):
            log.info("a regression: method.label_smoothing, mixup and cutmix are of classes and not used")
            label_smoothing = mixup = cutmix = 0.0
        if self.numbers and class_balanced:
            raise ValueError("method.class_balanced: a regression has no classes")
        self.from_weights, self.label_smoothing, self.class_balanced = from_weights, label_smoothing, class_balanced
        self.mixer = None
        if mixup > 0 or cutmix > 0:
            from timm.data.mixup import Mixup  # timm is slow to import, and probes do without

            # it applies the label smoothing itself, but only to one class a video
            smoothing = label_smoothing if model.problem == ONE_CLASS else 0.0
            self.mixer = Mixup(mixup, cutmix, label_smoothing=smoothing, num_classes=model.num_classes)
        self.class_weight: Tensor | None = None
        self.metrics = MetricCollection(self.problem.metrics(), compute_groups=False)
        self._named: set[str] = set()  # splits whose class names have been compared with the model's
        self.tested: list[tuple[Tensor, Tensor, Tensor]] = []  # index, label, scores of each batch
        self.frozen_layers = [] if freeze is None else freeze_blocks(model, freeze)

    def train(self, mode: bool = True) -> Classification:
        super().train(mode)
        for layer in self.frozen_layers:
            layer.eval()
        return self

    def setup(self, stage: str) -> None:
        """Check the labels before the first step, and take over the names of the classes."""
        data = data_of(self.trainer)
        for split, dataset in data.datasets.items():
            name = f"data.{split} {data.paths[split]}"
            if split not in self._named:  # Lightning sets up once per stage
                self._named.add(split)
                dataset.manifest = self._match_names(dataset.manifest, name)
            weight = self.problem.check(dataset.manifest, name, split, self.model.id2label)
            if split == "train" and self.class_balanced:
                self.class_weight = weight

    def _match_names(self, manifest: Manifest, where: str) -> Manifest:
        """The manifest with the model's own class numbers. A model without class names takes those of the manifest.

        Raises ValueError if the manifest names classes that the model does not have.
        """
        names, learned = manifest.class_names(), self.model.id2label
        if names is None:
            return manifest
        if learned is not None:
            numbers = match_names(names, learned, where)
            if numbers == list(range(len(names))):
                return manifest
            if self.numbers:
                raise ValueError(f"{where}: labels.txt names the numbers in another order than the model does")
            return manifest.relabelled(numbers)
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
        several = self.model.problem != ONE_CLASS
        label = batch.label
        if several:  # timm mixes numbers of classes; those of the clips give each clip's share in the mixture
            self.mixer.num_classes, label = len(batch), torch.arange(len(batch), device=self.device)
        with seeded(key(self.plan.seed, "mixup", step, self.global_rank)):
            # timm mixes images: with frames as channels, all frames of a clip are mixed and cut alike
            mixed, target = self.mixer(batch.clip.flatten(1, 2), label)  # [B,C*T,H,W], [B,classes]
        clip = mixed.view_as(batch.clip)
        if several:
            return replace(batch, clip=clip), target.to(batch.label) @ batch.label, self.label_smoothing
        return replace(batch, clip=clip), target, 0.0

    def _weight(self) -> Tensor | None:
        if self.class_weight is not None:
            self.class_weight = self.class_weight.to(self.device)  # copied once: the host waits for such a copy
        return self.class_weight

    def _evaluate(self, batch: Batch) -> StepResult:
        logits = self.model(batch.clip)
        self._tell(self.metrics, logits, batch.label)
        return StepResult(self.model.loss(logits, batch.label), len(batch))

    def _tell(self, metric: Metric | MetricCollection, logits: Tensor, label: Tensor) -> None:
        several = self.model.problem == "multi_label_classification"  # torchmetrics wants integers
        metric.update(self.model.scores(logits), label.long() if several else label)

    def on_validation_epoch_start(self) -> None:
        self.metrics.reset()

    def on_validation_epoch_end(self) -> None:
        found, self.by_class = self.problem.measured(dict(self.metrics.compute()))  # of all ranks
        self.log_dict({f"val/{name}": value for name, value in found.items()}, prog_bar=True, sync_dist=True)

    # ---- testing ----

    def test_step(self, batch: Batch, batch_index: int) -> None:
        scores = mean_of_views(self.model.scores(self.model(batch.clip)), batch.views)  # [videos,classes]
        self.tested.append((batch.index[:: batch.views], batch.label[:: batch.views], scores))

    def on_test_epoch_end(self) -> None:
        """Gather each video once from all ranks, compute the figures, and write predictions.parquet."""
        index, label, scores = (gather_rows(rows, self.trainer.strategy).cpu() for rows in self._tested_here())
        self.tested.clear()
        order = index.argsort()
        index, label, scores = index[order], label[order], scores[order]
        assert len(index.unique()) == len(index), "a video was tested twice"
        labelled = known(label)
        found: dict[str, float] = {"videos": float(len(index))}
        if labelled.any():
            figures, self.by_class = self.problem.tested(scores[labelled], label[labelled], self.plan.seed)
            found |= figures
        self.log_dict({f"test/{name}": value for name, value in found.items()}, sync_dist=True)
        if self.trainer.is_global_zero:
            data = data_of(self.trainer)
            dataset = data.datasets["test"]
            assert isinstance(dataset, EvaluationVideos)
            records = [dataset.manifest.record(i) for i in index.tolist()]
            file = data.run_dir / "predictions.parquet"
            write_predictions(file, records, scores, dataset.views, self.model.labels.column)

    def _tested_here(self) -> list[Tensor]:
        """index, label and scores of this rank's videos, of which there may be none."""
        nothing, classes = torch.zeros(0, dtype=torch.int64, device=self.device), self.model.num_classes
        scores = torch.zeros(0, classes, device=self.device)
        empty = (nothing, nothing if self.model.problem == ONE_CLASS else scores, scores)
        return [torch.cat(rows) for rows in zip(empty, *self.tested, strict=True)]
