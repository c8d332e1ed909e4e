"""Runs of train.py on the small SLURM, by the files in slurm/."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from small_slurm import SmallSlurm, until

from tubelet.loggers.metrics_csv import read_metrics

ROOT = Path(__file__).parents[2]
PATIENCE = 600
"""Seconds after which something hangs, however busy the machine is."""


class Clone:
    """A directory that looks like a clone of the project, and the arguments of a tiny run in it: 180 steps, validated
    every 30, saved every 20. While there is a file `slow`, steps take time.
    """

    def __init__(self, directory: Path, arguments: list[str]) -> None:
        self.directory = directory
        self.arguments = [argument for argument in arguments if argument != "logger=none"] + [
            "trainer.strategy=ddp", "trainer.max_epochs=60", "trainer.val_every_n_epochs=10",
            "callbacks.checkpoints.every_n_steps=20", "callbacks.throughput=null", "+callbacks.slow._target_=slow.Slow",
        ]  # fmt: skip
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT / 'src'}:{Path(__file__).parent}",
            "OMP_NUM_THREADS": "1",
        }
        (directory / "slurm").mkdir(parents=True)  # but for the developer's own site.env
        for file in [ROOT / "train.py", ROOT / "conf", *ROOT.glob("slurm/*.sbatch"), *ROOT.glob("slurm/*.sh")]:
            (directory / file.relative_to(ROOT)).symlink_to(file)

    @property
    def slow(self) -> Path:
        return self.directory / "slow"

    @property
    def run(self) -> Path:
        """The only run directory."""
        (path,) = (self.directory / "runs/try").iterdir()
        return path

    def steps(self) -> int:
        """Steps whose metrics are written."""
        for file in self.directory.glob("runs/try/*/metrics.csv"):
            if curve := read_metrics(file).get("train/loss"):
                return curve[-1][0] + 1
        return 0

    def after_step(self, step: int) -> None:
        until(lambda: self.steps() >= step, PATIENCE, f"step {step}")


class Jobs(Clone):
    """Submitted from there to the small SLURM, which ends with the `with` block what has not ended by then."""

    def __init__(self, slurm: SmallSlurm, directory: Path, arguments: list[str]) -> None:
        super().__init__(directory, arguments)
        self.slurm = slurm
        self.environment["MASTER_ADDR"] = "127.0.0.1"  # the names of its nodes are not known to the resolver
        self.submitted: list[str] = []

    def __enter__(self) -> Jobs:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def train(self, *overrides: str, options: tuple[str, ...] = ("--nodes=2",), logger: str = "none") -> Job:
        return self.submit(*options, "slurm/pretrain.sbatch", *self.arguments, f"logger={logger}", *overrides)

    def submit(self, *arguments: str) -> Job:
        """What one says to sbatch."""
        number = self.slurm.submit(*arguments, cwd=self.directory, **self.environment)
        self.submitted.append(number)
        return self.job(number)

    def job(self, number: str) -> Job:
        """Also of an array's task, "array_task"."""
        return Job(self, number)

    def end(self) -> None:
        self.slurm.call("scancel", *self.submitted)


class Job:
    def __init__(self, jobs: Jobs, number: str) -> None:
        self.jobs, self.number = jobs, number

    def __getitem__(self, key: str) -> str:
        """JobState, Restarts, ... as `scontrol show job` tells them."""
        return self.jobs.slurm.job(self.number)[key]

    @property
    def output(self) -> str:
        return (self.jobs.directory / f"slurm-{self.number}.out").read_text()

    def restarted(self, times: int = 1) -> None:
        until(lambda: self["Restarts"] == str(times) and self["JobState"] == "RUNNING", PATIENCE, "another start")

    def ended(self, state: str = "COMPLETED") -> None:
        until(
            lambda: self["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), PATIENCE, f"the end of {self.number}"
        )
        assert self["JobState"] == state, self.output


def assert_equal(run: Path, other: Path) -> None:
    """The same weights, optimizer and counters, bit for bit, and the same metrics in every row."""
    found, expected = (torch.load(each / "checkpoints" / "last.ckpt", weights_only=True) for each in (run, other))
    for key in ("global_step", "state_dict", "optimizer_states"):
        assert same(found[key], expected[key]), key
    assert (run / "metrics.csv").read_text() == (other / "metrics.csv").read_text()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
