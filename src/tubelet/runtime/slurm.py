"""Facts about the SLURM job of this process. Only this file reads SLURM's environment variables."""

from __future__ import annotations

import os
import sys

_SHELLS = ("interactive", "bash", "sh", "zsh", "fish", "tcsh", "notebook")
_SPECIAL_STEPS = 0xFFFFFFF0  # from this number on a step is not srun's, but the batch script or an interactive shell


def job() -> str | None:
    """The name of the job for scontrol, which a requeue does not change; None outside of SLURM."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """How many times the job was requeued."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def tasks() -> int:
    """The number of tasks of the job, or of the step if srun has started this process; 0 outside of SLURM."""
    return int(os.environ.get("SLURM_NTASKS") or 0)


def step() -> int | None:
    """The number, within the job, of the srun that has started this process; None if none has."""
    number = os.environ.get("SLURM_STEP_ID", "")
    return int(number) if number.isdigit() and int(number) < _SPECIAL_STEPS else None


def port() -> int:
    """The port at which the ranks of this run meet. Each job and each srun of a job gets another port."""
    # 3571 is prime to 10000, so the sruns of one job get different ports
    number = int(os.environ.get("SLURM_JOB_ID", "0")[-4:])
    return 15000 + (number + 3571 * (step() or 0)) % 10000


def interactive() -> bool:
    """Whether the job is interactive: a shell that salloc or srun has opened, or a notebook."""
    name = os.environ.get("SLURM_JOB_NAME", "").lower()
    terminal = sys.stdin is not None and sys.stdin.isatty()
    return name in _SHELLS or "jupyter" in name or terminal or "ipykernel" in sys.modules


def runs_alone() -> bool:
    """Whether a person has started this process by hand in a job with tasks, so that it is not one of these tasks."""
    return tasks() > 0 and step() is None and interactive()


def in_batch_script() -> bool:
    """Whether the script of sbatch has started this process directly, without srun."""
    return os.environ.get("ENVIRONMENT") == "BATCH" and step() is None
