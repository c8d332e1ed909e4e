"""What every method shares: the optimizer, the schedule, the randomness of a step, and the one logging call.

A method implements `step(batch) -> StepResult`; this class does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from tubelet.data.dataset import Batch
from tubelet.data.randomness import key
from tubelet.optim.adamw import AdamW


@dataclass(frozen=True)
class StepResult:
    """loss: scalar; metrics: name -> scalar, logged beside it; clips: how many clips they are the mean of."""

    loss: Tensor
    clips: int
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """How long a run is: optimizer steps in all, steps of one epoch, clips of one global batch (before repeats)."""

    total_steps: int
    steps_per_epoch: int
    batch_size: int
    seed: int = 0


class Method(L.LightningModule):
    """Args: model, what is trained; model_config: the plain Hydra node it was built from, kept in every checkpoint, so
    that a checkpoint loads wherever it is moved; optim: how it is trained; plan: for how long.
    """

    masked = False
    """Whether it hides tokens, and so needs `masking`."""

    def __init__(self, model: nn.Module, model_config: dict[str, Any], optim: AdamW, plan: Plan) -> None:
        super().__init__()
        self.model = model
        self.model_config = model_config
        self.optim = optim
        self.plan = plan

    def step(self, batch: Batch) -> StepResult:
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        result = self.step(batch)
        self._log("train", result)
        return result.loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self._log("val", self.step(batch))

    def _log(self, stage: str, result: StepResult) -> None:
        values = {f"{stage}/loss": result.loss.detach()} | {f"{stage}/{k}": v for k, v in result.metrics.items()}
        training = stage == "train"
        self.log_dict(
            values, on_step=training, on_epoch=not training, batch_size=result.clips, sync_dist=not training,
            prog_bar=True,
        )  # fmt: skip

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optim.build(self.model)

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        # what the model draws (drop path, dropout, mixup) depends on the step alone, so that a resumed run repeats it
        torch.manual_seed(key(self.plan.seed, "step", self.trainer.fit_loop.total_batch_idx, self.global_rank))
        lr = self.optim.lr(self.global_step, self.plan.total_steps, self.plan.steps_per_epoch, self.plan.batch_size)
        for group in self.optimizers(use_pl_optimizer=False).param_groups:
            group["lr"] = lr * group["lr_scale"]
        self.log("lr", lr, prog_bar=True)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.optim.clip_grad is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grads_with_norm_(parameters, self.optim.clip_grad, norm)
        self.log("grad_norm", norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model_config"] = self.model_config
