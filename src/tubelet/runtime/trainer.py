"""The Lightning Trainer, built from the keys of conf/trainer."""

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
    fast_dev_run: int = 0,
) -> L.Trainer:
    """docs/training.md explains every key. `max_steps` counts optimizer steps and, if not -1, replaces `max_epochs`;
    the `plan` follows from both and from the size of the data. One step accumulates `accumulate` micro-batches.

    Our sampler distributes the samples over the ranks, so Lightning must not replace it. The method clips gradients. If
    `callbacks` contains no progress bar, there is none: by default Lightning would add its own.
    """
    if log_every_n_steps < 1:
        raise ValueError(f"trainer.log_every_n_steps must be at least 1, got {log_every_n_steps}")
    if fast_dev_run < 0:
        raise ValueError(f"trainer.fast_dev_run must be a number of steps, or 0 for a real run, got {fast_dev_run}")
    # not Lightning's own: that would leave out the loggers and checkpoints, which deserve a trial as well
    limit = fast_dev_run or 1.0
    resolved = resolve_precision(precision, accelerator)
    # a type for the whole model, or None for precisions that Lightning handles itself
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
        log_every_n_steps=1 if fast_dev_run else log_every_n_steps,
        limit_val_batches=limit,
        limit_test_batches=limit,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
    )


def _environment() -> list[ClusterEnvironment]:
    """In a SLURM job we say who has started the ranks, because Lightning takes a shell in the job for a task."""
    return [ranks.environment() or LightningEnvironment()] if slurm.tasks() else []


def _strategy(name: str, timeout: timedelta) -> Any:
    if name == "ddp":
        # No buffer changes in a step, so the ranks need not exchange any. torch 2.15 has renamed the argument.
        names = ("forward_sync_buffers", "broadcast_buffers")
        buffers = next(name for name in names if name in signature(DistributedDataParallel).parameters)
        flags: dict[str, Any] = {"find_unused_parameters": False, "gradient_as_bucket_view": True, buffers: False}
        return DDPStrategy(timeout=timeout, **flags)
    return FullySharded(timeout=timeout) if name == "fsdp" else name


class FullySharded(ModelParallelStrategy):
    """FSDP2: `Method.configure_model` spreads parameters, gradients and the optimizer's state over all ranks. A
    checkpoint is a directory into which every rank writes its part. Any number of ranks can read it.
    """

    def setup_environment(self) -> None:
        shard_over_all_ranks(self)
        super().setup_environment()


class WholePrecision(Precision):
    """The whole model, weights included, in one floating-point type. We do not use Lightning's own plugins for this:
    they also convert batches, and ours are uint8 until they are on the device. The embedding converts clips to its own
    type.
    """

    def __init__(self, precision: Any, dtype: torch.dtype) -> None:
        self.precision, self.dtype = precision, dtype

    def convert_module(self, module: nn.Module) -> nn.Module:
        return module.to(self.dtype)


def resolve_precision(precision: str, accelerator: str) -> Any:
    """`auto` is bf16-mixed if that is faster on the device (GPUs since Ampere, CPUs with AMX), else float32."""
    if precision != "auto":
        return precision
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if cpu_has_amx() else "32-true"


def cpu_has_amx() -> bool:
    """Whether the CPU has bf16 matrix units (AMX). With bf16 instructions alone (avx512_bf16), the demo's steps were
    half as fast as in float32 on an Intel Xeon, and no faster on an AMD EPYC. Linux on x86 lists AMX in /proc/cpuinfo;
    on other systems the answer is no.
    """
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
