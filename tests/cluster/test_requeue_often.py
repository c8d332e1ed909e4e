"""Steps as fast as possible on two nodes: there, handlers that save at once hang, the other rank in a collective."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from jobs import PATIENCE, Jobs
from small_slurm import SmallSlurm, until

TIMES = 10
ENDLESS = [
    "trainer.max_epochs=100000",
    "trainer.val_every_n_epochs=100000",
    "callbacks.checkpoints.every_n_steps=100000",
]


def test_twenty_of_twenty_times_a_job_is_requeued(
    slurm: SmallSlurm, tmp_path: Path, tiny_arguments: Callable[..., list[str]]
) -> None:
    """Ten times each of two jobs, side by side; their rows are those of a third, which is left in peace."""
    with ExitStack() as stack:
        one, other, whole = (
            stack.enter_context(Jobs(slurm, tmp_path / name, tiny_arguments())) for name in ("one", "other", "whole")
        )
        started = {jobs: jobs.train(*ENDLESS) for jobs in (one, other)}
        for restarts in range(1, TIMES + 1):
            for jobs, job in started.items():
                jobs.after_step(jobs.steps() + 1)
                slurm.call("scancel", "--signal=USR1", job.number)
            for job in started.values():
                until(lambda: int(job["Restarts"]) == restarts, PATIENCE, f"restart {restarts}")  # noqa: B023
        whole.train(*ENDLESS)
        for jobs, job in started.items():
            steps = jobs.steps()
            jobs.after_step(steps + 1)
            jobs.end()
            assert job.output.count("stopped by SIGUSR1 after step") == TIMES
            assert job.output.count(f"the job (slurm {job.number}) was restarted: continuing") == TIMES
            whole.after_step(steps)
            rows = [(each.run / "metrics.csv").read_text().splitlines()[: steps + 1] for each in (jobs, whole)]
            assert rows[0] == rows[1]
