from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from tubelet.run_directory import RunDirectory, choose


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def config(**changes: object) -> DictConfig:
    return OmegaConf.create({"name": "try", "seed": 0, "resume": None, "trainer": {"max_steps": 5}, **changes})


def interrupted(**changes: object) -> Path:
    run, checkpoint, _ = choose(config(**changes))
    assert checkpoint is None
    run.last_checkpoint.write_bytes(b"weights")
    run.unlock()
    return run.path


def test_auto_takes_the_newest_interrupted_run_with_an_equal_config() -> None:
    interrupted()
    newest = interrupted(trainer={"max_steps": 9})  # the trainer may differ
    interrupted(seed=1)  # another config
    run, checkpoint, reason = choose(config(resume="auto"))
    assert run.path == newest
    assert checkpoint == newest / "checkpoints" / "last.ckpt"
    assert str(newest) in reason


def test_auto_passes_by_finished_running_and_empty_runs() -> None:
    finished = interrupted()
    (finished / "summary.json").write_text("{}")
    running = RunDirectory(interrupted())
    assert running.lock()
    choose(config())[0].unlock()  # no checkpoint yet
    run, checkpoint, reason = choose(config(resume="auto"))
    assert checkpoint is None
    assert run.path not in (finished, running.path)
    assert "no interrupted run" in reason


def test_without_resume_every_run_has_its_own_directory() -> None:
    assert len({choose(config())[0].path for _ in range(3)}) == 3


def test_resume_from_a_path() -> None:
    path = interrupted()
    for value in (path, path / "checkpoints" / "last.ckpt"):
        run, checkpoint, _ = choose(config(resume=str(value)))
        assert run.path == path
        assert checkpoint == path / "checkpoints" / "last.ckpt"
        run.unlock()
    with pytest.raises(ValueError, match="nowhere"):
        choose(config(resume="nowhere"))


def test_a_running_run_cannot_be_taken() -> None:
    run = RunDirectory(interrupted())
    assert run.lock()
    with pytest.raises(ValueError, match="in use"):
        choose(config(resume=str(run.path)))
