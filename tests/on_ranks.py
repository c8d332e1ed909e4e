"""Whole runs on several ranks of this machine. As a program, it is one of those ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tubelet import run
from tubelet.data.dataset import Batch
from tubelet.loggers.metrics_csv import read_metrics
from tubelet.methods.base import Plan, StepResult
from tubelet.methods.pretraining import Pretraining
from tubelet.models.masked import MaskedModel
from tubelet.optim.adamw import AdamW


def on_ranks(count: int, configs: list[DictConfig], check: bool = True) -> subprocess.CompletedProcess[str]:
    """`run.main` of each config, one after the other in the same processes, for starting those takes longer than a run.
    Raises RuntimeError with all that was printed if they fail, unless `check` is off."""
    files = []
    for number, cfg in enumerate(configs):
        files.append(f"config_{number}.yaml")
        OmegaConf.save(cfg, files[-1])
    launch = ["torch.distributed.run", "--standalone", f"--nproc-per-node={count}", __file__, *files]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", *launch], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        output = process.communicate(timeout=900)
    except subprocess.TimeoutExpired:
        process.terminate()  # not `kill`: torchrun then ends the ranks, too
        raise
    if check and process.returncode:
        raise RuntimeError("".join(output))
    return subprocess.CompletedProcess(process.args, process.returncode, *output)


class Poisoned(Pretraining):
    """In every third step the loss, or only the gradient, of the last rank's first batch is not finite."""

    def __init__(
        self, model: MaskedModel, model_config: dict[str, Any], optim: AdamW, plan: Plan, loss: bool = True
    ) -> None:
        super().__init__(model, model_config, optim, plan)
        self.loss = loss

    def step(self, batch: Batch) -> StepResult:
        result = super().step(batch)
        last_rank = self.global_rank == self.trainer.world_size - 1
        if not self.training or self.results or self.global_step % 3 != 2 or not last_rank:
            return result
        zero = 0 * result.loss
        return replace(result, loss=result.loss + (zero.log() - zero.log() if self.loss else zero.sqrt()))


def newest(name: str) -> Path:
    return max(Path("runs", name).iterdir())


def curve(name: str, metric: str = "train/loss") -> list[float]:
    """Of the newest run of that name, as metrics.csv has it."""
    return [value for _, value in read_metrics(newest(name) / "metrics.csv")[metric]]


if __name__ == "__main__":
    for file in sys.argv[1:]:
        cfg = OmegaConf.load(file)
        assert isinstance(cfg, DictConfig)
        run.main(cfg)
