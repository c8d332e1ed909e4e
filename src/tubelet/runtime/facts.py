"""facts.json in the run directory: what config and metrics do not say, for a model card: videos, hardware, versions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import lightning as L
import torch

from tubelet.data.datamodule import VideoDataModule
from tubelet.loggers.environment import versions
from tubelet.storage import write_text

NAME = "facts.json"


def write_facts(directory: Path, trainer: L.Trainer, data: VideoDataModule) -> None:
    """Write facts.json: `videos` per split, `precision`, `hardware` in words, `versions` of packages."""
    facts = {
        "videos": {name: len(part) for name, part in data.datasets.items()},
        "precision": str(trainer.precision),
        "hardware": _hardware(trainer.strategy.root_device, trainer.world_size, trainer.num_nodes),
        "versions": versions(),
    }
    write_text(directory / NAME, json.dumps(facts, indent=2) + "\n")


def read_facts(directory: Path) -> dict[str, Any]:
    """The facts of a run, or nothing: runs of earlier versions wrote none."""
    file = directory / NAME
    facts: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return facts


def _hardware(device: torch.device, ranks: int, nodes: int) -> str:
    """`8 x NVIDIA H100 on 2 nodes`, or `CPU (2 cores)`."""
    if device.type == "cuda":
        what = f"{ranks} x {torch.cuda.get_device_name(device)}"
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        what = f"{device.type.upper()} ({cores} cores)" if ranks == 1 else f"{ranks} x {device.type.upper()}"
    return f"{what} on {nodes} nodes" if nodes > 1 else what
