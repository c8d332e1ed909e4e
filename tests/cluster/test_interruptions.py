"""slurm/pretrain.sbatch on two nodes, interrupted in every way a cluster knows: each run ends as if nothing had been."""

import json
from pathlib import Path

import pytest
from jobs import PATIENCE, Jobs, assert_equal
from small_slurm import until

from tubelet.callbacks.metrics_csv import read_metrics


def test_two_nodes_pretrain_to_the_end(whole: Path) -> None:
    assert json.loads((whole / "summary.json").read_text())["steps"] == 180
    curves = read_metrics(whole / "metrics.csv")
    assert [step for step, _ in curves["train/loss"]] == list(range(180))
    assert [step for step, _ in curves["val/loss"]] == [29, 59, 89, 119, 149, 179]


def test_a_signal_by_hand(jobs: Jobs, whole: Path) -> None:
    jobs.slow.touch()
    job = jobs.train()
    jobs.after_step(5)
    jobs.slurm.call("scancel", "--signal=USR1", job.number)
    job.restarted()
    steps = jobs.steps()
    jobs.slow.unlink()
    job.ended()
    assert f"stopped by SIGUSR1 after step {steps}: job {job.number} is requeued" in job.output
    assert_equal(jobs.run, whole)




def test_the_time_limit(jobs: Jobs, whole: Path) -> None:
    """SLURM looks at time limits only every 30 seconds."""
    jobs.slow.touch()
    job = jobs.train(options=("--nodes=2", "--time=1", "--signal=USR1@10"))
    job.restarted()
    steps = jobs.steps()
    print(steps, job.output)
    jobs.slow.unlink()
    job.ended()
    assert steps > 0
    assert f"stopped by SIGUSR1 after step {steps}: job {job.number} is requeued" in job.output
    assert_equal(jobs.run, whole)
