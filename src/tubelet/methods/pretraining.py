"""Self-supervised pretraining of a masked model."""

from __future__ import annotations

from typing import Any

from tubelet.data.dataset import Batch
from tubelet.methods.base import Method, StepResult
from tubelet.models.masked import MaskedModel


class Pretraining(Method):
    """`MaskedModel` computes: mask -> visible = encoder(clip, mask) -> prediction = decoder(visible, mask) -> target ->
    loss. Validation also logs the target's baselines: the losses of simple predictions, to compare with.
    """

    model: MaskedModel
    trains = MaskedModel
    masked = True

    def step(self, batch: Batch) -> StepResult:
        assert batch.mask is not None
        output = self.model(batch.clip, batch.mask)
        metrics = {} if self.training else self.model.target.baselines(output.target)
        return StepResult(output.loss, len(batch.clip), metrics)

    def on_train_batch_end(self, *arguments: Any) -> None:
        if self.step_is_complete:  # first, because the base class then clears the accumulated results
            self.model.target.after_step(self.model.encoder, self.global_step, self.plan.total_steps)
        super().on_train_batch_end(*arguments)
