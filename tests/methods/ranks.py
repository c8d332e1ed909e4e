"""`ranks(count, configs, folder)` trains each config in `count` processes; as a program, it is one of those processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from tubelet import run
from tubelet.callbacks.metrics_csv import read_metrics
from tubelet.config import check
from tubelet.data.randomness import key


def ranks(count: int, configs: dict[str, DictConfig], folder: Path) -> None:
    """Runs in `folder`/NAME, from its last checkpoint if there is one. All in the same processes: starting them takes
    longer than a run. Raises CalledProcessError if one fails."""
    folder.mkdir(exist_ok=True)
    for name, cfg in configs.items():
        OmegaConf.save(cfg, folder / f"{name}.yaml", resolve=True)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)] if count > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *launch, __file__, *configs], cwd=folder, env=environment, check=True, timeout=900)


def curve(folder: Path, metric: str = "train/loss") -> list[float]:
    return [value for _, value in read_metrics(folder / "metrics.csv")[metric]]


def main(names: list[str]) -> None:
    for name in names:
        cfg = OmegaConf.load(f"{name}.yaml")
        assert isinstance(cfg, DictConfig)
        check(cfg)
        torch.manual_seed(key(cfg.seed, "weights"))
        method, data, trainer = run.build(cfg, Path(name))
        (Path(name) / "checkpoints").mkdir(parents=True, exist_ok=True)
        last = Path(name) / "checkpoints" / "last.ckpt"
        trainer.fit(method, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True)


if __name__ == "__main__":
    main(sys.argv[1:])
