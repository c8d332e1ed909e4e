"""`val/feature_std`, `val/mean_cosine` and `val/rankme` in pretraining: is the encoder collapsing?"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from torch import Tensor

from tubelet.data.dataset import Batch
from tubelet.evaluate.gather import gather_rows
from tubelet.evaluate.health import health
from tubelet.evaluate.knn import pooled_features
from tubelet.methods.base import method_of
from tubelet.models.masked import MaskedModel

log = logging.getLogger(__name__)


class FeatureHealth(L.Callback):
    """In every validation of pretraining: the mean tokens of the first `max_clips` clips, without a mask, are compared
    with each other (see tubelet.evaluate.health). No labels are needed. If the target can collapse (a moving average of
    the encoder) and `feature_std` is below `bound`, a warning says that it has. Under other targets a low value is no
    fault: encoders that learned well from pixels have one, because their mean tokens share one large component. It does
    nothing if the method hides no tokens.

    Args: max_clips: over all ranks; their forward pass is the cost. bound: of feature_std, in [0, 1). On the
    demo, untrained encoders have 0.24 to 0.33, and a collapsed one 0.06.
    """

    def __init__(self, max_clips: int = 256, bound: float = 0.1) -> None:
        if max_clips < 2:
            raise ValueError(f"callbacks.health.max_clips must be at least 2, got {max_clips}")
        if not 0.0 <= bound < 1.0:
            raise ValueError(f"callbacks.health.bound must lie in [0, 1), got {bound}")
        self.max_clips, self.bound = max_clips, bound
        self._features: list[Tensor] = []
        self._count = 0

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._features, self._count = [], 0

    @torch.no_grad()
    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        missing = self.max_clips // trainer.world_size - self._count
        if not method_of(trainer).masked or missing <= 0:
            return
        with trainer.precision_plugin.forward_context():
            features = pooled_features(method_of(trainer).model.encoder, batch.clip[:missing])
        self._features.append(features.float())
        self._count += len(features)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        method = method_of(trainer)
        if not method.masked:
            return
        mine = torch.cat(self._features or [torch.zeros(0, method.model.encoder.dim, device=method.device)])
        features = gather_rows(mine, trainer.strategy)
        if len(features) < 2:
            return
        found = health(features)
        for name, value in asdict(found).items():
            method.log(f"val/{name}", value, sync_dist=False, rank_zero_only=False)
        may = isinstance(method.model, MaskedModel) and method.model.target.can_collapse
        if may and found.feature_std < self.bound and trainer.is_global_zero:
            log.warning(
                "the features have collapsed: val/feature_std is %.2g, below %g, and the mean cosine between two clips "
                "%.4f. A moving average needs another balance of optim.base_lr and target.momentum",
                found.feature_std,
                self.bound,
                found.mean_cosine,
            )
