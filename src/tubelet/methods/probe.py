"""Probing a frozen encoder: several heads are trained at once on the same tokens, each at its own learning rate.

The forward pass of the encoder is the expensive part. So a sweep of learning rates costs as much as one probe (V-JEPA 2
does the same, https://arxiv.org/abs/2506.09985). A linear probe has pool="mean" and a LayerNorm before the head; an
attentive probe has pool="attentive" (V-JEPA, https://arxiv.org/abs/2404.08471).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from tubelet.data.dataset import Batch
from tubelet.layers.pool import mean_token
from tubelet.methods.base import Plan, StepResult
from tubelet.methods.classification import Classification
from tubelet.models.classifier import VideoClassifier
from tubelet.optim.adamw import AdamW
from tubelet.optim.groups import parameter_groups

_PARTS = ("attentive_pool", "fc_norm", "dropout", "head")


class Head(nn.Module):
    """A copy of the parts of a classifier after its encoder: tokens [B,prefix+N,D] -> logits [B,classes]."""

    def __init__(self, model: VideoClassifier) -> None:
        super().__init__()
        self.pool, self.prefix = model.pool, model.encoder.num_prefix_tokens
        self.attentive_pool: nn.Module | None
        self.fc_norm: nn.Module
        self.dropout: nn.Module
        self.head: nn.Module
        for name in _PARTS:
            setattr(self, name, copy.deepcopy(getattr(model, name)))

    def forward(self, tokens: Tensor) -> Tensor:
        if self.attentive_pool is not None:
            pooled = self.attentive_pool(tokens)
        else:
            pooled = tokens[:, 0] if self.pool == "cls" else mean_token(tokens, self.prefix)
        return self.head(self.dropout(self.fc_norm(pooled)))

    def copy_into(self, model: VideoClassifier) -> None:
        """Copy the weights of this head into the classifier."""
        for name in _PARTS:
            if (part := getattr(self, name)) is not None:
                getattr(model, name).load_state_dict(part.state_dict())


class Probe(Classification):
    """Args, in addition to those of `Classification`:
        lr_factors: one head per factor, trained at optim.base_lr times the factor.

    Every validation logs val/top1_lr<factor> of each head (of several labels val/map, of numbers val/r2). val/top1 and
    the model in the checkpoints belong to the best head; before the first validation, to the head whose factor is
    nearest to 1.
    """

    frozen = True
    best: Tensor

    def __init__(
        self,
        model: VideoClassifier,
        model_config: dict[str, Any],
        optim: AdamW,
        plan: Plan,
        lr_factors: Sequence[float] = (0.1, 0.3, 1.0, 3.0, 10.0),
        from_weights: bool = True,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        class_balanced: bool = False,
    ) -> None:
        super().__init__(model, model_config, optim, plan, from_weights, label_smoothing, mixup, cutmix, class_balanced)
        if not lr_factors or min(lr_factors) <= 0 or len(set(lr_factors)) < len(lr_factors):
            raise ValueError(f"method.lr_factors must be positive and different, got {list(lr_factors)}")
        self.heads = nn.ModuleList(Head(model) for _ in lr_factors)
        self.lr_factors = list(lr_factors)
        nearest = min(range(len(lr_factors)), key=lambda i: abs(math.log(lr_factors[i])))
        self.register_buffer("best", torch.tensor(nearest))  # a buffer, so that checkpoints keep it
        model.requires_grad_(False)
        self.head_scores = MetricCollection(
            {str(i): self.problem.head_metric() for i in range(len(lr_factors))}, compute_groups=False
        )
        # logits of every head [heads,B,classes] and labels [B], until the validation has shown which head is best
        self.unscored: list[tuple[Tensor, Tensor]] = []

    def train(self, mode: bool = True) -> Probe:
        super().train(mode)
        self.model.eval()  # no dropout and no drop path in a frozen encoder
        return self

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = []
        for head, factor in zip(self.heads, self.lr_factors, strict=True):
            for group in parameter_groups(head, self.optim.weight_decay):
                groups.append({**group, "lr_scale": factor})
        return self.optim.of(groups)

    def step(self, batch: Batch) -> StepResult:
        batch, target, smoothing = self._mix(batch) if self.training else (batch, batch.label, 0.0)
        weight = self._weight() if self.training else None
        with torch.no_grad():
            tokens = self.model.encoder(batch.clip)
        logits = torch.stack([self.model.in_units(head(tokens)) for head in self.heads])  # [heads,B,classes]
        losses = torch.stack([self.model.loss(one, target, smoothing, weight) for one in logits])
        if self.training:
            return StepResult(losses.mean(), len(batch))
        for i, one in enumerate(logits):
            self._tell(self.head_scores[str(i)], one, batch.label)
        self.unscored.append((logits.cpu(), batch.label.cpu()))
        return StepResult(losses.min(), len(batch))

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.head_scores.reset()
        self.unscored.clear()

    def on_validation_epoch_end(self) -> None:
        scores = [float(self.head_scores[str(i)].compute().nanmean()) for i in range(len(self.heads))]  # of all ranks
        best = scores.index(max(scores))
        found = {f"{self.monitor}_lr{factor:g}": score for factor, score in zip(self.lr_factors, scores, strict=True)}
        self.log_dict(found, sync_dist=True)
        for logits, label in self.unscored:
            self._tell(self.metrics, logits[best].to(self.device), label.to(self.device))
        self.unscored.clear()
        self.best.fill_(best)
        self._copy_head(best)
        super().on_validation_epoch_end()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._copy_head(int(self.best))  # in place, so that it changes checkpoint["state_dict"], too
        super().on_save_checkpoint(checkpoint)

    def _copy_head(self, number: int) -> None:
        """Copy the weights of one head into the model."""
        head = self.heads[number]
        assert isinstance(head, Head)
        head.copy_into(self.model)
