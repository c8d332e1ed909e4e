"""What the files in slurm/ ask of SLURM, seen by a stand-in for python."""

import pytest
from jobs import Jobs

ECHO = """#!/usr/bin/env bash
echo "rank $SLURM_PROCID of $SLURM_NTASKS, $SLURM_NTASKS_PER_NODE a node, $SLURM_CPUS_PER_TASK cores, $SITE: $*"
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
    """With what the site wants in the environment, as `source slurm/site.env` puts it there, and in the job."""
    (echoing.directory / "slurm/site.env").write_text("SITE=here\nexport SITE\n")
    echoing.environment |= {"SBATCH_GPUS_PER_NODE": "2", "SBATCH_CPUS_PER_GPU": "2", "SBATCH_PARTITION": "urgent"}
    job = echoing.submit("--nodes=2", f"slurm/{file}.sbatch", "seed=3", "name=a b")
    job.ended()
    assert job["Partition"] == "urgent"
    command = "train.py trainer.devices=2 trainer.num_nodes=2 seed=3 name=a b"
    expected = [f"rank {rank} of 4, 2 a node, 2 cores, here: {command}" for rank in range(4)]
    assert sorted(job.output.splitlines()) == expected


def test_without_gpus_a_task_a_node(echoing: Jobs) -> None:
    job = echoing.submit("--nodes=2", "--cpus-per-task=3", "slurm/pretrain.sbatch")
    job.ended()
    command = "train.py trainer.devices=1 trainer.num_nodes=2"
    assert sorted(job.output.splitlines()) == [f"rank {r} of 2, 1 a node, 3 cores, : {command}" for r in range(2)]
