"""How ranks that torchrun or SLURM started agree; whole runs of them are in test_launchers.py."""

import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

from tubelet.runtime import ranks as ranks_module
from tubelet.runtime import signals, slurm
from tubelet.runtime.ranks import Ranks, join


def four(ask: Callable[[Ranks], Any]) -> list[Any]:
    """What each of four ranks on two nodes gets, or the error it ends by."""
    store = dist.HashStore()

    def one(rank: int) -> Any:
        try:
            return ask(Ranks(rank, 4, rank % 2, store, launched=True))
        except (Exception, SystemExit) as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, range(4)))


def test_rank_0_decides_for_all() -> None:
    called: list[int] = []

    def ask(ranks: Ranks) -> list[str]:
        return [ranks.from_rank_zero(lambda: called.append(ranks.rank) or len(called)) for _ in range(3)]

    assert four(ask) == [[1, 2, 3]] * 4
    assert called == [0, 0, 0]


def test_one_rank_of_every_node_prepares() -> None:
    called: list[int] = []
    assert four(lambda ranks: ranks.once_per_node(lambda: called.append(ranks.rank))) == [None] * 4
    assert sorted(called) == [0, 2]


@pytest.mark.parametrize(("error", "code"), [(ValueError("no such key"), 2), (OSError("disk"), 1)])
def test_all_end_by_one_error(error: Exception, code: int) -> None:
    def fail() -> None:
        raise error

    ends = four(lambda ranks: ranks.from_rank_zero(fail))
    assert ends[0] is error
    assert [type(end) for end in ends[1:]] == [SystemExit] * 3
    assert {end.code for end in ends[1:]} == {code}


def test_the_trainer_counts_on_as_many_as_were_started() -> None:
    four(lambda ranks: ranks.check(2, 2))
    with pytest.raises(ValueError, match=r"started 4 processes in all, but .* is 1 x 1"):
        Ranks(0, 4, launched=True).check(1, 1)
    with pytest.raises(ValueError, match="1 processes"):
        Ranks(launched=True).check(2, 1)
    Ranks().check(2, 1)  # Lightning will start the other
    with pytest.raises(ValueError, match=r"trainer\.num_nodes is 2: start the processes by torchrun or srun"):
        Ranks().check(1, 2)


def test_alone_without_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    ranks = join.__wrapped__("cpu", 1.0)
    assert (ranks.rank, ranks.size, ranks.launched) == (0, 1, False)
    assert ranks.from_rank_zero(lambda: 5) == 5


def test_slurm_settings_that_will_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE", raising=False)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    with pytest.raises(ValueError, match="ntasks-per-node"):
        join.__wrapped__("cpu", 1.0)


# ---- ranks of two runs, and ranks that never come -------------------------------------------------------------------


def test_ranks_of_two_runs_do_not_train_together() -> None:
    def ask(ranks: Ranks) -> None:
        ranks.compare(
            {"name": "A", "seed": "0", "lr": "1"} if ranks.rank != 2 else {"name": "B", "seed": "0", "lr": "2"}
        )

    first, second, third, fourth = four(ask)
    assert str(first) == str(third)
    assert "rank 2 belongs to another run than rank 0: name is 'B', not 'A'; lr is '2', not '1'" in str(first)
    assert [second.code, fourth.code] == [2, 2]  # theirs is rank 0's message


def test_ranks_of_one_run_go_on() -> None:
    def ask(ranks: Ranks) -> int:
        ranks.compare({"name": "A"})
        return int(ranks.from_rank_zero(lambda: 5))

    assert four(ask) == [5] * 4
    Ranks().compare({"name": "A"})  # alone


SLURM = {"SLURM_JOB_ID": "4242", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "1",
         "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost",
         "MASTER_ADDR": "localhost"}  # fmt: skip


@pytest.fixture
def slurm_job(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`slurm_job(NAME=value)`: this process is in a job of four tasks."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_", "MASTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("ENVIRONMENT", raising=False)

    def job(**more: str) -> None:
        for name, value in {**SLURM, **more}.items():
            monkeypatch.setenv(name, value)

    return job


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


Job = Callable[..., None]


def test_without_srun_the_wait_is_said_and_ends(
    slurm_job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm_job(SLURM_JOB_NAME="train", MASTER_PORT=free_port())
    monkeypatch.setattr(ranks_module, "TIMEOUT", timedelta(seconds=3))
    monkeypatch.setattr(ranks_module, "ANNOUNCE_AFTER", 0.2)
    monkeypatch.setattr(ranks_module, "FAIL_AFTER", 0.5)
    with pytest.raises(ValueError, match=r"no other rank came within 0\.5 s\. SLURM gave this job 4 tasks, but srun"):
        join.__wrapped__("cpu", 1.0)
    said = capsys.readouterr().err
    assert said.count("for the other 3 of 4 ranks") == 1
    assert "`srun python train.py ...`" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", ["", "0"])  # srun has started it, or not
def test_a_signal_ends_the_wait(
    slurm_job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, step: str
) -> None:
    slurm_job(SLURM_JOB_NAME="train", SLURM_STEP_ID=step, MASTER_PORT=free_port())
    monkeypatch.setattr(ranks_module, "TIMEOUT", timedelta(seconds=5))
    monkeypatch.setattr(ranks_module, "LEAVE_AFTER", 0.5)
    monkeypatch.setattr(signals, "noted", [number])
    with pytest.raises(SystemExit) as stop:
        join.__wrapped__("cpu", 1.0)
    assert stop.value.code == signals.TRY_AGAIN
    assert "for the other 3 of 4 ranks: run the same command again" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["interactive", "jupyter", "sys/dashboard/sys/jupyter"])
def test_by_hand_in_an_interactive_job_it_runs_alone(
    slurm_job: Job, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    slurm_job(SLURM_JOB_NAME=name)
    assert ranks_module.environment() is None
    ranks = join.__wrapped__("cpu", 1.0)
    assert (ranks.size, ranks.launched) == (1, False)
    assert "runs alone: SLURM gave the job 4 tasks" in caplog.text


def test_srun_in_an_interactive_job_starts_ranks(slurm_job: Job) -> None:
    """salloc names the job `interactive`, where Lightning sees no tasks."""
    slurm_job(SLURM_JOB_NAME="interactive", SLURM_STEP_ID="0", SLURM_PROCID="3")
    environment = ranks_module.environment()
    assert environment is not None
    assert (environment.world_size(), environment.global_rank()) == (4, 3)


def test_in_the_script_of_sbatch_it_is_refused_at_once(slurm_job: Job) -> None:
    slurm_job(SLURM_JOB_NAME="train", ENVIRONMENT="BATCH")
    with pytest.raises(ValueError, match="SLURM gave this job 4 tasks, but srun does not seem"):
        ranks_module.environment()
    slurm_job(SLURM_JOB_NAME="train", ENVIRONMENT="BATCH", SLURM_STEP_ID="0")
    assert ranks_module.environment() is not None
    slurm_job(SLURM_JOB_NAME="train", ENVIRONMENT="BATCH", SLURM_NTASKS="1", SLURM_STEP_ID="")
    assert ranks_module.environment() is not None  # one task needs no srun


def test_every_srun_of_a_job_has_a_port(slurm_job: Job) -> None:
    ports = set()
    for step in ("", "0", "1", "2", "4294967290"):
        slurm_job(SLURM_STEP_ID=step)
        ports.add(slurm.port())
    assert len(ports) == 3  # no step, the first, and the shell of salloc: the job's own
    assert 15000 + 4242 in ports
    assert all(15000 <= port < 25000 for port in ports)
