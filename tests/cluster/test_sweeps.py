"""Mask ratios: as a job array, and by Hydra's submitit launcher."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from jobs import PATIENCE, Jobs
from small_slurm import until

from tubelet.report.page import report

RATIOS = "0.25,0.5,0.75,0.9"
OVERRIDES = ["encoder.image_size=32", "logger=none"]  # 16 positions: the four differ


def table(path: Path) -> dict[str, str]:
    """Ratio -> loss, of the runs that ended."""
    with path.open() as file:
        return {row["masking.ratio"]: row["val/loss"] for row in csv.DictReader(file) if row["val/loss"]}


def requeue_one(jobs: Jobs, array: str, task: int, of: int) -> None:
    """When all tasks of an array train, one is told that its time is up; then all may end."""
    until(lambda: len(list(jobs.directory.glob("runs/try/*/metrics.csv"))) == of, PATIENCE, f"{of} runs")
    jobs.slurm.call("scancel", "--signal=USR1", f"{array}_{task}")
    until(lambda: jobs.job(f"{array}_{task}")["Restarts"] == "1", PATIENCE, f"another start of task {task}")
    jobs.slow.unlink()
    for number in range(of):
        jobs.job(f"{array}_{number}").ended()


def test_an_array_of_four_ratios(jobs: Jobs) -> None:
    """One of its tasks is requeued, alone."""
    jobs.slow.touch()
    array = jobs.submit(
        "slurm/sweep.sbatch", f"masking.ratio={RATIOS}", *jobs.arguments, *OVERRIDES, "trainer.strategy=auto"
    )
    requeue_one(jobs, array.number, 2, of=4)
    assert sorted(table(report(jobs.directory / "runs/try", jobs.directory / "ratios.csv"))) == RATIOS.split(",")
    assert [jobs.job(f"{array.number}_{task}")["Restarts"] for task in range(4)] == ["0", "0", "1", "0"]


def test_as_many_values_as_tasks(jobs: Jobs) -> None:
    array = jobs.submit("--array=0-1", "slurm/sweep.sbatch", f"masking.ratio={RATIOS}")
    for task in range(2):
        job = jobs.job(f"{array.number}_{task}")
        job.ended("FAILED")
        assert f"error: masking.ratio={RATIOS} has 4 values, --array has 2 tasks" in job.output


def test_submitit(jobs: Jobs) -> None:
    """Each job has two ranks on two nodes; one of the jobs is told by submitit's signal that its time is up."""
    jobs.slow.touch()
    options = ["hydra/launcher=submitit_slurm", "hydra.launcher.nodes=2", "trainer.num_nodes=2"]
    launcher = subprocess.Popen(
        [sys.executable, "train.py", "-m", "masking.ratio=0.25,0.5", *jobs.arguments, *OVERRIDES, *options],
        cwd=jobs.directory, env=jobs.slurm.env | jobs.environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        until(lambda: len(list(jobs.directory.glob("runs/try/*/*/metrics.csv"))) == 2, PATIENCE, "two runs")
        (first,) = jobs.directory.glob("runs/try/*/.submitit/*_0")
        array = first.name.removesuffix("_0")
        jobs.submitted.append(array)
        jobs.slurm.call("scancel", "--signal=USR2", f"{array}_1")
        until(lambda: jobs.job(f"{array}_1")["Restarts"] == "1", PATIENCE, "another start of the second")
        jobs.slow.unlink()
        output, _ = launcher.communicate(timeout=PATIENCE)
    finally:
        launcher.kill()
    assert launcher.returncode == 0, output
    (sweep,) = jobs.directory.glob("runs/try/sweep_*/sweep.csv")
    assert sorted(table(sweep)) == ["0.25", "0.5"]


def test_an_array_of_points_with_probes(jobs: Jobs, tiny_arguments: Callable[..., list[str]]) -> None:
    """One of its tasks is requeued, alone: it continues its point, and then probes it."""
    jobs.slow.touch()
    probe = json.dumps([*tiny_arguments(), "stage=validate", "callbacks.knn.k=1"])
    study = ["sweep.probes=[knn]", f"+sweep.overrides.knn={probe}", "trainer.strategy=auto"]
    array = jobs.submit("--array=0-1", "slurm/sweep.sbatch", "masking.ratio=0.25,0.5", *jobs.arguments, *study)
    requeue_one(jobs, array.number, 1, of=2)
    with report(jobs.directory / "runs/try", jobs.directory / "ratios.csv").open() as file:
        rows = list(csv.DictReader(file))
    probed = sorted((row["masking.ratio"], row["state"]) for row in rows if row["knn/top1"])
    assert probed == [("0.25", "finished"), ("0.5", "finished")]
