"""What the files in slurm/ ask of SLURM, seen by a stand-in for python."""

import json
from pathlib import Path

import pytest
from jobs import ROOT, Jobs

ECHO = f"""#!/usr/bin/env bash
# a task: its rank, the size of the whole, the node's tasks and cores, and train.py's arguments
echo "task $SLURM_PROCID $SLURM_NTASKS $SLURM_NTASKS_PER_NODE $SLURM_CPUS_PER_TASK $SITE $*"
"""


@pytest.fixture
def echoing(jobs: Jobs) -> Jobs:
    (jobs.directory / "bin").mkdir()
    (jobs.directory / "bin/python").write_text(ECHO)
    (jobs.directory / "bin/python").chmod(0o755)
    jobs.environment["PATH"] = f"{jobs.directory}/bin:{jobs.environment['PATH']}"
    return jobs


@pytest.mark.parametrize("file", ["pretrain", "finetune"])
def test_a_task_for_every_gpu_with_its_share_of_the_cores(echoing: Jobs, file: str) -> None:
    (echoing.directory / "slurm").unlink()
    ...
