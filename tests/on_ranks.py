"""Whole runs on several ranks of this machine. As a program, it is one of those ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from tubelet import run
from tubelet.callbacks.metrics_csv import read_metrics


def on_ranks(count: int, configs: list[DictConfig], check: bool = True) -> subprocess.CompletedProcess[str]:
    """`run.main` of each config, one after the other in the same processes, for starting those takes longer than a run.
    Raises RuntimeError with all that was printed if they fail, unless `check` is off."""
    files = []
    for number, cfg in enumerate(configs):
        files.append(f"config_{number}.yaml")
        OmegaConf.save(cfg, files[-1])
    launch = ["torch.distributed.run", "--standalone", f"--nproc-per-node={count}", __file__, *files]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", *launch], env=environment, text=True, capture_output=True, timeout=900
    )
    if check and ended.returncode:
        raise RuntimeError(ended.stdout + ended.stderr)
    return ended


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
