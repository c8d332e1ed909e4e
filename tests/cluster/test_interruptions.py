"""slurm/pretrain.sbatch on two nodes, interrupted in every way a cluster knows: each ends as if nothing had been."""

import json
import os
import signal
import time
from pathlib import Path

from jobs import PATIENCE, Jobs, assert_equal
from small_slurm import until

from tubelet.loggers.metrics_csv import read_metrics


def test_two_nodes_pretrain_to_the_end(whole: Path) -> None:
    assert json.loads((whole / "summary.json").read_text())["steps"] == 180
    curves = read_metrics(whole / "metrics.csv")
    assert [step for step, _ in curves["train/loss"]] == list(range(180))
    assert [step for step, _ in curves["val/loss"]] == [29, 59, 89, 119, 149, 179]


def test_a_signal_by_hand(jobs: Jobs, whole: Path) -> None:
    """With workers, which SLURM signals too; and the W&B run is continued."""
    jobs.slow.touch()
    job = jobs.train("data.num_workers=2", logger="wandb")
    jobs.after_step(5)
    jobs.slurm.call("scancel", "--signal=USR1", job.number)
    job.restarted()
    steps = jobs.steps()
    jobs.slow.unlink()
    job.ended()
    assert f"stopped by SIGUSR1 after step {steps}: requeueing job {job.number}" in job.output
    assert_equal(jobs.run, whole)
    id = (jobs.run / "wandb_id.txt").read_text()
    offline = list((jobs.run / "wandb").glob("offline-run-*"))
    assert len(offline) == 2
    assert all(path.name.endswith(f"-{id}") for path in offline)


def test_a_signal_in_a_validation(jobs: Jobs, whole: Path) -> None:
    """Nothing is new to save: the job goes on from the checkpoint of step 20, and validates after step 30 again."""
    (jobs.directory / "slow_validation").touch()
    job = jobs.train()
    jobs.after_step(30)
    time.sleep(2)
    jobs.slurm.call("scancel", "--signal=USR1", job.number)
    job.restarted()
    assert jobs.steps() == 30
    (jobs.directory / "slow_validation").unlink()
    job.ended()
    assert f"stopped by SIGUSR1 after step 30: requeueing job {job.number}" in job.output
    assert_equal(jobs.run, whole)


def test_the_time_limit(jobs: Jobs, whole: Path) -> None:
    jobs.slow.touch()
    job = jobs.train(options=("--nodes=2", "--time=1", "--signal=USR1@10"))  # SLURM looks at it every 30 seconds
    job.restarted()
    steps = jobs.steps()
    jobs.slow.unlink()
    job.ended()
    assert f"stopped by SIGUSR1 after step {steps}: requeueing job {job.number}" in job.output
    assert_equal(jobs.run, whole)


def test_preemption_by_a_higher_partition(jobs: Jobs, whole: Path) -> None:
    jobs.slow.touch()
    job = jobs.train()
    jobs.after_step(5)
    urgent = jobs.submit("--partition=urgent", "--nodes=2", "--exclusive", "--wrap", "sleep 1")
    urgent.ended()
    job.restarted()
    steps = jobs.steps()
    jobs.slow.unlink()
    job.ended()
    assert f"stopped by SIGUSR1 after step {steps}: requeueing job {job.number}" in job.output
    assert_equal(jobs.run, whole)


def test_requeued_by_somebody_else(jobs: Jobs, whole: Path) -> None:
    """No warning but SIGTERM, as with preemption on clusters that send no other."""
    jobs.slow.touch()
    job = jobs.train("data.num_workers=2")
    jobs.after_step(5)
    jobs.slurm.call("scontrol", "requeue", job.number)
    job.restarted()
    steps = jobs.steps()
    jobs.slow.unlink()
    job.ended()
    assert f"stopped by SIGTERM after step {steps}: requeueing job {job.number}" in job.output
    assert_equal(jobs.run, whole)


def test_signals_before_training(jobs: Jobs, whole: Path) -> None:
    """They never kill the job. It starts again, but for one in the very first moment, which is ignored."""
    jobs.slow.touch()
    job = jobs.train()
    restarts = 0
    for delay in (1.0, 0.3, 0.0):
        until(lambda: f"{job.number}.0" in jobs.slurm.call("squeue", "--steps", "-h", "-o", "%i"), PATIENCE, "a start")
        time.sleep(delay)
        jobs.slurm.call("scancel", "--signal=USR1", job.number)
        until(lambda: jobs.steps() or int(job["Restarts"]) > restarts, PATIENCE, "training or another start")  # noqa: B023
        if jobs.steps():
            break
        restarts += 1
    assert restarts >= 1
    jobs.slow.unlink()
    job.ended()
    assert job.output.count("stopped by SIGUSR1 after step 0") == restarts
    assert_equal(jobs.run, whole)


def test_a_killed_rank_ends_the_job_and_submitting_it_again_continues(jobs: Jobs, whole: Path) -> None:
    jobs.slow.touch()
    job = jobs.train("resume=auto")
    jobs.after_step(25)
    os.kill(rank(job.number, 1), signal.SIGKILL)
    killed = time.monotonic()
    job.ended("FAILED")
    assert time.monotonic() - killed < 60
    jobs.slow.unlink()
    again = jobs.train("resume=auto")
    again.ended()
    assert "resume=auto: continuing" in again.output
    assert_equal(jobs.run, whole)


def rank(job: str, number: int) -> int:
    """The process of a rank."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            if {f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={number}".encode()} <= set(environment) and (
                process / "cmdline"
            ).read_bytes().split(b"\0")[1] == b"train.py":
                return int(process.name)
        except (OSError, IndexError):
            continue
    raise AssertionError(f"job {job} has no rank {number}")
