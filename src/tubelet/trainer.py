"""The Lightning Trainer, from the few keys of conf/trainer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import torch

from tubelet.methods.base import Plan


def build_trainer(
    run_dir: str | Path,
    callbacks: list[L.Callback],
    loggers: list[Any],
    plan: Plan,
    max_epochs: int = 800,
    max_steps: int = -1,
    accelerator: str = "auto",
    strategy: str = "auto",
    devices: int | str = 1,
    num_nodes: int = 1,
    precision: str = "auto",
    accumulate: int = 1,
    val_every_n_epochs: int = 1,
    log_every_n_steps: int = 10,
) -> L.Trainer:
    """`max_steps` counts optimizer steps and, if not -1, replaces `max_epochs`: `run` makes the plan of them and of the
    data's size. `accumulate` micro-batches make a step.

    Our sampler deals the samples to the ranks, so Lightning must not replace it; gradients are clipped by the method.
    """
    return L.Trainer(
        default_root_dir=run_dir,
        callbacks=callbacks,
        logger=loggers,
        max_epochs=math.ceil(plan.total_steps / plan.steps_per_epoch),
        max_steps=plan.total_steps,
        accelerator=accelerator,
        strategy=strategy,
        devices=devices,
        num_nodes=num_nodes,
        precision=resolve_precision(precision, accelerator),
        accumulate_grad_batches=accumulate,
        check_val_every_n_epoch=val_every_n_epochs,
        log_every_n_steps=log_every_n_steps,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_model_summary=False,
    )


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
