"""The base class of every method: the optimizer, the schedule, the randomness of a step, and the logging.

A method implements `step(batch) -> StepResult`. This class does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from tubelet.data.dataset import Batch
from tubelet.data.randomness import key
from tubelet.methods.parts import logs_every_n_steps
from tubelet.methods.sharding import gather_parameters, shard
from tubelet.models.base import VideoModel
from tubelet.optim.adamw import AdamW
from tubelet.weights.formats import first_edition


@dataclass(frozen=True)
class StepResult:
    """loss: scalar; clips: the number of clips it is the mean of; metrics: name -> scalar, logged with the loss."""

    loss: Tensor
    clips: int
    metrics: dict[str, Tensor] = field(default_factory=dict)

    def values(self) -> dict[str, Tensor]:
        return {"loss": self.loss.detach(), **self.metrics}


@dataclass(frozen=True)
class Plan:
    """The length of a run: all optimizer steps, steps per epoch, and videos per global batch (before repeats)."""

    total_steps: int
    steps_per_epoch: int
    batch_size: int
    seed: int = 0


class Method(L.LightningModule):
    """Args:
    model: the model to train.
    model_config: the node it was built from. Every checkpoint keeps it, so that it loads wherever it is moved.
    optim: the optimizer and its learning rates.
    plan: the length of the run.
    """

    model: VideoModel

    trains: type[VideoModel] = VideoModel
    """The class of models that it can train."""

    masked = False
    """Whether the method hides tokens and so needs `masking`."""

    frozen = False
    """Whether the method keeps the model unchanged and trains something on top of it."""

    learns_labels = False
    """Whether the method trains on labels."""

    monitor: str | None = None
    """The validation metric that chooses best.ckpt; larger is better. None: there is no best.ckpt."""

    by_class: Tensor | None = None
    """A table of the last validation or test, one row per class; only if the method learns labels."""

    by_class_columns: tuple[str, ...] = ()
    """Its columns; none: it is a confusion matrix, counts [true,guessed]."""

    def __init__(self, model: VideoModel, model_config: dict[str, Any], optim: AdamW, plan: Plan) -> None:
        super().__init__()
        if not isinstance(model, self.trains):
            raise ValueError(
                f"{type(self).__name__} trains a {self.trains.__name__}, the model is a {type(model).__name__}: "
                "leave `model=` to the method"
            )
        self.model = model
        self.model_config = model_config
        self.masking_config: dict[str, Any] | None = None  # the node of the masking it is trained with
        self.optim = optim
        self.plan = plan
        self.results: list[dict[str, Tensor]] = []  # loss and metrics of the batches accumulated so far
        self.grad_norm = torch.zeros(())  # gradient norm of the last step, before clipping

    def configure_model(self) -> None:
        """Shard the model if the strategy has a mesh of devices. Lightning calls this more than once."""
        if self.device_mesh is not None and not isinstance(self.model, FSDPModule):
            shard(self.model, self.device_mesh["data_parallel"])

    def step(self, batch: Batch) -> StepResult:
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        result = self.step(batch)
        self.results.append(result.values())
        return result.loss

    @property
    def step_is_complete(self) -> bool:
        """Whether enough batches are accumulated for an optimizer step."""
        return len(self.results) == self.trainer.accumulate_grad_batches

    def on_train_batch_end(self, *_: Any) -> None:
        """Log the mean over accumulated batches and ranks. Only logged steps pay for the reduction over ranks."""
        if not self.step_is_complete:
            return
        if self.global_step % logs_every_n_steps(self.trainer) == 0 or self.trainer.should_stop:
            for name in self.results[0]:
                mean = torch.stack([values[name] for values in self.results]).mean()
                mean = self.trainer.strategy.reduce(mean, reduce_op="mean")
                # on the host: the progress bar reads it in every step, and would each time wait for the device
                self.log(f"train/{name}", mean.cpu(), prog_bar=True)
        self.results.clear()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        result = self.step(batch)
        values = {f"val/{name}": value for name, value in result.values().items()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=result.clips, sync_dist=True, prog_bar=True)

    def on_validation_start(self) -> None:
        gather_parameters(self.model, True)

    def on_validation_end(self) -> None:
        gather_parameters(self.model, False)

    def on_test_start(self) -> None:
        gather_parameters(self.model, True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optim.build(self.model)

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        # random numbers of the model (drop path, dropout, mixup) depend on the step alone: a resumed run repeats them
        seed = key(self.plan.seed, "step", self.trainer.fit_loop.total_batch_idx, self.global_rank)
        # not torch.manual_seed, which also queues a call for every kind of device that is not initialised yet
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)
        # set in every step from its number alone: there is no scheduler whose state a resumed run would need
        lr = self.optim.lr(self.global_step, self.plan.total_steps, self.plan.steps_per_epoch, self.plan.batch_size)
        # torch's own optimizer, not Lightning's wrapper around it
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        # a tensor on the host: Lightning would copy a float to the device, and wait until it is there
        self.log("lr", torch.tensor(lr), prog_bar=True)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        """Clip the gradient, and skip the update if the gradient is not finite (see tubelet.runtime.nonfinite)."""
        scaler = self.trainer.scaler
        if scaler is not None:
            scaler.unscale_(optimizer)  # Lightning leaves this to the fused optimizer's step, which is too late to clip
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        # computed even without clipping: it is logged, and shows whether all gradients are finite
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()  # under FSDP each rank has the norm of its part only
        if self.optim.clip_grad is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.optim.clip_grad, norm)
        if scaler is None:  # a scaler skips such an update itself
            # the fused optimizer reads this on the device, so that the host does not have to wait
            optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        self.grad_norm = norm
        self.log("grad_norm", norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model_config"] = self.model_config
        checkpoint["masking_config"] = self.masking_config

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A run of tubelet 0.1 can be continued: its optimizer numbers the parameters, and their order is the same."""
        for name in ("state_dict", "current_model_state"):  # the latter beside averaged weights
            if name in checkpoint:
                checkpoint[name] = first_edition.renamed(checkpoint[name], prefix="model.")


def method_of(trainer: L.Trainer) -> Method:
    """The method that the trainer runs, with its real type."""
    method = trainer.lightning_module
    assert isinstance(method, Method)
    return method
