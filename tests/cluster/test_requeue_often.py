"""Steps as fast as possible on two nodes: there, handlers that save at once hang, the other rank in a collective."""

from collections.abc import Callable
from pathlib import Path

from jobs import PATIENCE, Jobs
from small_slurm import SmallSlurm, until

TIMES = 20
ENDLESS = [
    "trainer.max_epochs=100000",
    "trainer.val_every_n_epochs=100000",
    "callbacks.checkpoints.every_n_steps=100000",
]


def test_a_job_is_requeued_twenty_times(
    slurm: SmallSlurm, jobs: Jobs, tmp_path: Path, tiny_arguments: Callable[..., list[str]]
) -> None:
    job = jobs.train(*ENDLESS)
    for restarts in range(1, TIMES + 1):
        before = jobs.steps()
        until(lambda: jobs.steps() > before, PATIENCE, f"training after {restarts - 1} restarts")  # noqa: B023
        slurm.call("scancel", "--signal=USR1", job.number)
        until(lambda: int(job["Restarts"]) == restarts, PATIENCE, f"restart {restarts}")  # noqa: B023
    steps = jobs.steps()
    jobs.after_step(steps + 1)
    jobs.end()
    assert job.output.count("stopped by SIGUSR1") == job.output.count(f"(slurm {job.number}) was restarted") == TIMES

    whole = Jobs(slurm, tmp_path / "whole", tiny_arguments())
    whole.train(*ENDLESS)
    whole.after_step(steps)
    whole.end()
    rows = [(each.run / "metrics.csv").read_text().splitlines()[: steps + 1] for each in (jobs, whole)]
    assert rows[0] == rows[1]
