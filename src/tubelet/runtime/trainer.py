"""The Lightning Trainer, from the few keys of conf/trainer."""

from __future__ import annotations

import math
from datetime import timedelta
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.plugins import Precision
from lightning.pytorch.plugins.environments import ClusterEnvironment, LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tubelet.methods.base import Plan
from tubelet.runtime import ranks, slurm
from tubelet.runtime.block_switches import BlockSwitches
from tubelet.runtime.lightning_internals import shard_over_all_ranks
from tubelet.runtime.nonfinite import NonFinite
from tubelet.runtime.requeue import Requeue


def build_trainer(
    run_dir: str | Path,
    callbacks: list[L.Callback],
    loggers: list[Any],
    plan: Plan,
    max_epochs: int = 800,
    max_steps: int = -1,
    accelerator: str = "auto",
    strategy: Literal["auto", "ddp", "fsdp"] = "auto",
    devices: int | str = 1,
    num_nodes: int = 1,
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"] = "auto",
    accumulate: int = 1,
    activation_checkpointing: bool = False,
    compile: bool = False,
    skip_nonfinite: int = 0,
    timeout_minutes: float = 10.0,
    val_every_n_epochs: int = 1,
    log_every_n_steps: int = 10,
    requeue: bool = True,
) -> L.Trainer:
    """`max_steps` counts optimizer steps and, if not -1, replaces `max_epochs`: `run` makes the plan of them and of the
    data's size. `accumulate` micro-batches make a step. docs/training.md explains every key.

    Our sampler deals the samples to the ranks, so Lightning must not replace it; gradients are clipped by the method.
    Without a progress bar among the `callbacks` there is none: Lightning would add its own.
    """
    if log_every_n_steps < 1:
        raise ValueError(f"trainer.log_every_n_steps must be at least 1, got {log_every_n_steps}")
    resolved = resolve_precision(precision, accelerator)
    whole = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(resolved)
    callbacks = [*callbacks, Requeue(timeout_minutes, enabled=requeue), NonFinite(skip_nonfinite)]
    return L.Trainer(
        default_root_dir=run_dir,
        callbacks=[*callbacks, BlockSwitches(activation_checkpointing, compile)],
        logger=loggers,
        max_epochs=math.ceil(plan.total_steps / plan.steps_per_epoch),
        max_steps=plan.total_steps,
        accelerator=accelerator,
        strategy=_strategy(
            "ddp" if strategy == "auto" and (devices != 1 or num_nodes > 1) else strategy,
            timedelta(minutes=timeout_minutes),
        ),
        devices=devices,
        num_nodes=num_nodes,
        precision=None if whole else resolved,
        plugins=[*([WholePrecision(resolved, whole)] if whole else []), *_environment()],
        accumulate_grad_batches=accumulate,
        check_val_every_n_epoch=val_every_n_epochs,
        log_every_n_steps=log_every_n_steps,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
    )


def _environment() -> list[ClusterEnvironment]:
    """In a SLURM job, who has started the ranks, for Lightning cannot tell a task from a shell in that job."""
    return [ranks.environment() or LightningEnvironment()] if slurm.tasks() else []


def _strategy(name: str, timeout: timedelta) -> Any:
    if name == "ddp":
        # no buffer changes in a step, so none need travel; torch 2.15 has renamed the argument
        names = ("forward_sync_buffers", "broadcast_buffers")
        buffers = next(name for name in names if name in signature(DistributedDataParallel).parameters)
        flags: dict[str, Any] = {"find_unused_parameters": False, "gradient_as_bucket_view": True, buffers: False}
        return DDPStrategy(timeout=timeout, **flags)
    return FullySharded(timeout=timeout) if name == "fsdp" else name


class FullySharded(ModelParallelStrategy):
    """FSDP2: parameters, gradients and the optimizer's state are spread over all ranks, by `Method.configure_model`. A
    checkpoint is a directory into which every rank writes its part; any number of ranks can read it.
    """

    def setup_environment(self) -> None:
        shard_over_all_ranks(self)
        super().setup_environment()


class WholePrecision(Precision):
    """The model in one type, weights and all. Lightning's own such plugins want to convert the loader's batches too,
    but those are uint8 until they are on the device; the embedding brings clips to the type of its weights.
    """

    def __init__(self, precision: Any, dtype: torch.dtype) -> None:
        self.precision, self.dtype = precision, dtype

    def convert_module(self, module: nn.Module) -> nn.Module:
        return module.to(self.dtype)


def resolve_precision(precision: str, accelerator: str) -> Any:
    """`auto`: bf16-mixed where the device is quicker in it (GPUs since Ampere, CPUs with AMX), else float32."""
    if precision != "auto":
        return precision
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if cpu_has_amx() else "32-true"


def cpu_has_amx() -> bool:
    """bf16 matrix units. Without them, bf16 instructions (avx512_bf16) made the demo's steps half as fast as float32 on
    an Intel Xeon and no faster on an AMD EPYC. Linux on x86 tells in /proc/cpuinfo; elsewhere: no.
    """
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
