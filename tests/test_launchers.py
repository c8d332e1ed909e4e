"""Whole runs of two ranks, by whatever starts them: one run directory, and one voice."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tubelet.loggers.metrics_csv import read_metrics

pytestmark = pytest.mark.slow
TRAIN = str(Path(__file__).parents[1] / "train.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", TRAIN]
TWO = ["trainer.devices=2", "trainer.strategy=ddp"]
Launch = Callable[..., tuple[int, str]]
"""(arguments of train.py, environment) -> exit code of the whole and everything that was printed."""


def lightning(*arguments: str, **environment: str) -> tuple[int, str]:
    return start([sys.executable, TRAIN, *arguments], environment)


def torchrun(*arguments: str, **environment: str) -> tuple[int, str]:
    return start([*TORCHRUN, *arguments], environment)


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


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_torchrun_is_ended_and_started_again(
    tiny_arguments: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.chdir(tmp_path)
    more = ["trainer.devices=2", f"trainer.strategy={strategy}", "trainer.max_epochs=60", "callbacks.throughput=null"]
    arguments = [*TORCHRUN, *tiny_arguments(*more, "trainer.val_every_n_epochs=7")]
    process = popen([*arguments, "resume=auto"], {})
    until_row(Path("runs/try"), 10)
    process.terminate()
    output, _ = process.communicate(timeout=250)
    (run,) = Path("runs/try").iterdir()
    steps = len(read_metrics(run / "metrics.csv")["train/loss"])
    assert process.returncode != 0
    assert f"stopped by SIGTERM after step {steps}: run the same command again with resume={run}\n" in output
    code, output = start([*arguments, "resume=auto"], {})
    assert code == 0, output
    code, output = start([*arguments, "name=whole"], {})
    (whole,) = Path("runs/whole").iterdir()
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def until_row(runs: Path, rows: int) -> None:
    end = time.monotonic() + 250
    while not any(len(file.read_text().splitlines()) > rows for file in runs.glob("*/metrics.csv")):
        assert time.monotonic() < end
        time.sleep(0.05)
