"""A signal ends a run in good order. On a real SLURM: tests/cluster."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from omegaconf import DictConfig

from tubelet import run
from tubelet.loggers.metrics_csv import read_metrics
from tubelet.runtime import requeue, signals
from tubelet.runtime.checkpoints import Checkpoints

Tiny = Callable[..., DictConfig]


class Signalled(Checkpoints):
    """Sends a signal to its own process when `hook` is called for the `count`-th time."""

    number, hook, count = signal.SIGUSR1, "", 0

    def _called(self, hook: str) -> None:
        if hook == self.hook:
            Signalled.count -= 1
            if self.count == 0:
                signal.raise_signal(self.number)

    def setup(self, *_: Any, **__: Any) -> None:
        self._called("setup")

    def on_train_batch_start(self, *_: Any) -> None:
        self._called("train")

    def on_validation_batch_end(self, *_: Any) -> None:
        self._called("validation")


@pytest.fixture
def stopped(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`stopped(hook, count, *overrides)`: run until the signal stops it; its exit code."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    def until_signal(hook: str, count: int, *overrides: str, number: int = signal.SIGUSR1) -> Any:
        cfg = tiny("trainer.max_epochs=3", *overrides)
        cfg.callbacks.checkpoints._target_ = f"{__name__}.Signalled"
        for name, value in (("hook", hook), ("count", count), ("number", number)):
            monkeypatch.setattr(Signalled, name, value)
        before = signal.getsignal(number)
        with pytest.raises(SystemExit) as stop:
            run.main(cfg)
        assert signal.getsignal(number) is before
        assert signals.noted == []
        return stop.value.code

    return until_signal


def only(pattern: str) -> Path:
    (path,) = Path("runs").glob(pattern)
    return path


def checkpoint(path: Path) -> dict[str, Any]:
    return torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT])
def test_the_step_is_finished_and_saved(
    stopped: Callable[..., str], number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stopped("train", 5, number=number) == requeue.TRY_AGAIN
    path = only("try/*")
    assert checkpoint(path)["global_step"] == 5
    assert [step for step, _ in read_metrics(path / "metrics.csv")["train/loss"]] == [0, 1, 2, 3, 4]
    name = signal.Signals(number).name
    assert f"stopped by {name} after step 5: run the same command again with resume={path}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("hook", "count"),
    [("setup", 1), ("train", 3), ("train", 5), ("validation", 1), ("train", 9)],
)
def test_the_continued_run_equals_an_uninterrupted_one_bitwise(
    tiny: Tiny, stopped: Callable[..., str], hook: str, count: int
) -> None:
    """Three epochs of three steps: before training, in an epoch, at its end, in its validation."""
    stopped(hook, count)
    saved = (only("try/*") / "checkpoints" / "last.ckpt").exists()
    run.main(tiny("trainer.max_epochs=3", f"resume={only('try/*')}" if saved else "name=try"))
    run.main(tiny("trainer.max_epochs=3", "name=whole"))
    ended = [path for path in Path("runs/try").iterdir() if (path / "summary.json").exists()]
    expected, found = checkpoint(only("whole/*")), checkpoint(ended[0])
    assert found["global_step"] == 9
    assert all(torch.equal(value, found["state_dict"][name]) for name, value in expected["state_dict"].items())
    assert (ended[0] / "metrics.csv").read_text() == (only("whole/*") / "metrics.csv").read_text()


def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A stand-in for SLURM."""
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "13")


def test_under_slurm_the_job_is_requeued_and_waits_for_its_end(
    stopped: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/asked; kill -TERM $PPID')
    assert stopped("train", 2) == 0
    assert (tmp_path / "asked").read_text() == "requeue 13\n"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert stopped("train", 2, "name=array") == 0
    assert (tmp_path / "asked").read_text() == "requeue 12_3\n"


def test_ctrl_c_requeues_nothing(stopped: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol(tmp_path, monkeypatch, f"touch {tmp_path}/asked")
    assert stopped("train", 2, number=signal.SIGINT) == requeue.TRY_AGAIN
    assert not (tmp_path / "asked").exists()


def test_ctrl_c_twice_ends_at_once() -> None:
    """But not if the second is the same one, which torchrun has handed on."""
    child = os.fork()
    if child == 0:
        with signals.all_noted():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1.1)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGINT


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo not allowed >&2; exit 1", "job 13 cannot be requeued (not allowed): run"),
        ("", "job 13 continues, although it was requeued; after its end run"),
    ],
)
def test_what_slurm_does_not_requeue_says_how_to_go_on(
    stopped: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    script: str, message: str,
) -> None:  # fmt: skip
    scontrol(tmp_path, monkeypatch, script)
    monkeypatch.setattr(requeue, "REQUEUE_WAIT", 0.5)
    monkeypatch.setattr(requeue, "REFUSED_WAIT", 0.5)
    assert stopped("train", 2) == requeue.TRY_AGAIN
    assert f"{message} the same command again with resume={only('try/*')}\n" in capsys.readouterr().err


def test_a_container_without_scontrol(
    stopped: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when the signal was SIGTERM: SLURM is not about to end the job."""
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert stopped("train", 2, number=signal.SIGTERM) == requeue.TRY_AGAIN
    message = "job 13 cannot be requeued (scontrol cannot be run here: No such file or directory): run"
    assert f"{message} the same command again with resume={only('try/*')}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("job", "override", "message"),
    [
        ("interactive", "trainer.requeue=true", "job 13 is interactive and is not requeued; run"),
        ("train", "trainer.requeue=false", "after step 2: run"),
    ],
)
def test_requeueing_can_be_turned_off_and_is_off_where_somebody_sits(
    stopped: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    job: str, override: str, message: str,
) -> None:  # fmt: skip
    scontrol(tmp_path, monkeypatch, f"touch {tmp_path}/asked")
    monkeypatch.setenv("SLURM_JOB_NAME", job)
    assert stopped("train", 2, override) == requeue.TRY_AGAIN
    assert not (tmp_path / "asked").exists()
    assert f"{message} the same command again with resume={only('try/*')}\n" in capsys.readouterr().err


@pytest.mark.parametrize(("alone", "asks"), [(False, False), (True, True)])
def test_a_rank_that_leaves_alone_does_not_rely_on_rank_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool, asks: bool
) -> None:
    """In a validation: rank 0 may have done its last batch, and wait for this one."""
    scontrol(tmp_path, monkeypatch, f"touch {tmp_path}/asked; kill -TERM $PPID")
    trainer = Mock(global_rank=1, world_size=2, default_root_dir=tmp_path)
    monkeypatch.setattr(requeue, "REQUEUE_WAIT", 0.5)
    with pytest.raises(SystemExit) as stop, signals.all_noted():
        requeue.end_process(requeue.Interrupted(trainer, alone=alone))
    assert (tmp_path / "asked").exists() == asks
    assert stop.value.code == (0 if asks else requeue.TRY_AGAIN)
