"""Whole runs of two ranks, by whatever starts them: one run directory, and one voice."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tubelet.callbacks.metrics_csv import read_metrics

pytestmark = pytest.mark.slow
TRAIN = str(Path(__file__).parents[1] / "train.py")
TWO = ["trainer.devices=2", "trainer.strategy=ddp"]
Launch = Callable[..., tuple[int, str]]
"""(arguments of train.py, environment) -> exit code of the whole and everything that was printed."""


def lightning(*arguments: str, **environment: str) -> tuple[int, str]:
    return start([sys.executable, TRAIN, *arguments], environment)


def torchrun(*arguments: str, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", TRAIN, *arguments]
    return start(command, environment)


def srun(*arguments: str, **environment: str) -> tuple[int, str]:
    """What `srun --ntasks-per-node=2` does: the same command twice, each told by SLURM's variables who it is."""
    common = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0",
              "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "127.0.0.1"}  # fmt: skip
    tasks = [
        popen([sys.executable, TRAIN, *arguments], common | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank} | environment)
        for rank in ("0", "1")
    ]
    outputs = [task.communicate(timeout=250)[0] for task in tasks]
    assert tasks[0].returncode == tasks[1].returncode
    return tasks[0].returncode, "".join(outputs)


def start(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    process = popen(command, environment)
    output, _ = process.communicate(timeout=250)
    return process.returncode, output


def popen(command: list[str], environment: dict[str, str]) -> "subprocess.Popen[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "TORCHELASTIC_"))}
    return subprocess.Popen(
        command, env=inherited | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("launch", [lightning, torchrun, srun])
def test_all_ranks_use_the_directory_that_rank_0_chose(
    launch: Launch, tiny_arguments: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = launch(*tiny_arguments(*TWO, "trainer.max_steps=4"))
    assert code == 0, output
    assert output.count("new run directory") == output.count("effective batch") == 1
    (run,) = Path("runs/try").iterdir()
    assert json.loads((run / "summary.json").read_text())["steps"] == 4
    assert [step for step, _ in read_metrics(run / "metrics.csv")["train/loss"]] == [0, 1, 2, 3]


@pytest.mark.parametrize("launch", [torchrun, srun])
def test_the_error_of_rank_0_is_said_once(
    launch: Launch, tiny_arguments: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, output = launch(*tiny_arguments(*TWO, "resume=empty"))
    assert code != 0
    assert output.count("error: resume=empty: there is no checkpoint") == 1
    assert "tubelet/run.py" not in output  # no traceback
