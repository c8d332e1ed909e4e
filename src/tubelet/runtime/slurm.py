"""What SLURM says about this job. Its environment variables are read here and nowhere else."""

from __future__ import annotations

import os
import sys

_SHELLS = ("interactive", "bash", "sh", "zsh", "fish", "tcsh", "notebook")
_SPECIAL_STEPS = 0xFFFFFFF0  # the numbers from here on are no steps of srun: the batch script, an interactive shell


def job() -> str | None:
    """The job as scontrol names it, which stays the same when it is requeued; None outside of SLURM."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """How often the job was requeued."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def tasks() -> int:
    """The tasks of the job, or of the step if srun has started this process; 0 outside of SLURM."""
    return int(os.environ.get("SLURM_NTASKS") or 0)


def step() -> int | None:
    """The number of the srun that has started this process, counted within the job; None without one."""
    number = os.environ.get("SLURM_STEP_ID", "")
    return int(number) if number.isdigit() and int(number) < _SPECIAL_STEPS else None


def port() -> int:
    """Where the ranks of this run meet: another port for each job and, within a job, for each srun."""
    number = int(os.environ.get("SLURM_JOB_ID", "0")[-4:])
    return 15000 + (number + 3571 * (step() or 0)) % 10000


def interactive() -> bool:
    """Whether a person sits at this job: a shell that salloc or srun has opened, or a notebook."""
    name = os.environ.get("SLURM_JOB_NAME", "").lower()
    terminal = sys.stdin is not None and sys.stdin.isatty()
    return name in _SHELLS or "jupyter" in name or terminal or "ipykernel" in sys.modules


def runs_alone() -> bool:
    """Whether a person has started this process by hand in a job with tasks: it is not one of the job's tasks."""
    return tasks() > 0 and step() is None and interactive()


def in_batch_script() -> bool:
    """Whether sbatch's script has started this process directly."""
    return os.environ.get("ENVIRONMENT") == "BATCH" and step() is None
