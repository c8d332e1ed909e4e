import fcntl
import os
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from tubelet.runtime import run_directory
from tubelet.runtime.run_directory import RunDirectory, choose


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)


def config(**changes: object) -> DictConfig:
    return OmegaConf.create({"name": "try", "seed": 0, "resume": None, "trainer": {"max_steps": 5}, **changes})


def save(path: Path) -> None:
    torch.save({"weights": torch.ones(1000)}, path)


def interrupted(**changes: object) -> Path:
    run, checkpoint, _ = choose(config(**changes))
    assert checkpoint is None
    save(run.last_checkpoint)
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


def test_a_child_does_not_keep_the_lock() -> None:
    run = RunDirectory(interrupted())
    assert run.lock()
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # a loader's worker that outlives its parent
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    run.unlock()
    assert RunDirectory(run.path).lock()
    os.write(done[1], b"x")
    os.waitpid(child, 0)


def test_a_file_system_without_locks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def flock(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    choose(config())
    assert "this file system has no locks" in caplog.text


SLURM = {"SLURM_JOB_ID": "7"}
ARRAY = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "ab12", "TORCHELASTIC_RESTART_COUNT": "0"}


def restart(monkeypatch: pytest.MonkeyPatch, job: dict[str, str]) -> None:
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT" if job is TORCHRUN else "SLURM_RESTART_COUNT", "1")


@pytest.mark.parametrize("job", [SLURM, ARRAY, TORCHRUN])
@pytest.mark.parametrize("resume", [None, "auto", "path"])
def test_a_restarted_job_returns_to_its_directory(
    job: dict[str, str], resume: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    resume = str(interrupted()) if resume == "path" else resume
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    run, checkpoint, _ = choose(config(resume=resume))
    run.unlock()
    monkeypatch.setenv("SLURM_JOB_ID", "8")  # of another job, or torchrun's inside one
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    interrupted()  # a newer directory with an equal config
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name)
    restart(monkeypatch, job)
    again, restarted_at, reason = choose(config(resume=resume))
    again.unlock()
    assert (again.path, restarted_at) == (run.path, checkpoint)
    assert "restarted" in reason
    assert ("from the beginning" in reason) == (resume in (None, "auto"))
    save(run.last_checkpoint)
    assert choose(config(resume=resume))[1] == run.last_checkpoint


def test_a_restarted_job_that_had_finished_has_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    path = interrupted()
    (path / "summary.json").write_text("{}")
    restart(monkeypatch, SLURM)
    run, checkpoint, reason = choose(config())
    assert (run.path, checkpoint, run.finished) == (path, None, True)
    assert "nothing to do" in reason


def test_another_run_of_a_restarted_job_is_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job script may start several; and a job that was not restarted starts anew."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    first = interrupted()
    assert choose(config())[0].path != first
    restart(monkeypatch, SLURM)
    assert choose(config(seed=1))[0].path != first


def test_a_restarted_job_does_not_share_its_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_directory, "LOCK_PATIENCE", 0.0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    run = RunDirectory(interrupted())
    assert run.lock()
    restart(monkeypatch, SLURM)
    with pytest.raises(ValueError, match=r"of this job \(slurm 7\) is in use"):
        choose(config())


def test_a_finished_run_that_is_continued_is_no_longer_finished() -> None:
    path = interrupted()
    (path / "summary.json").write_text("{}")
    assert not choose(config(resume=str(path)))[0].finished


def test_a_restarted_job_asked_for_more_than_it_has_finished_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its script may run several commands that differ in trainer alone: none of them is dropped."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    path = interrupted()
    (path / "summary.json").write_text("{}")
    restart(monkeypatch, SLURM)
    run, checkpoint, reason = choose(config(trainer={"max_steps": 6}))
    assert run.path != path
    assert checkpoint is None
    assert f"its run {path} is finished, and this command asks for trainer.max_steps=6" in reason
    assert f"resume={path} would continue that run" in reason
    assert f"new run directory {run.path}" in reason
    save(run.last_checkpoint)
    run.unlock()
    assert choose(config(trainer={"max_steps": 6}))[0].path == run.path  # restarted once more
    again = choose(config())
    assert (again[0].path, again[0].finished) == (path, True)


def test_a_restarted_job_on_other_machines_is_still_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    path = interrupted(trainer={"max_steps": 5, "devices": 4})
    (path / "summary.json").write_text("{}")
    restart(monkeypatch, SLURM)
    run, _, reason = choose(config(trainer={"max_steps": 5, "devices": 8}))
    assert (run.path, run.finished) == (path, True)
    assert "nothing to do" in reason


@pytest.mark.parametrize("how", ["directory", "checkpoint", "auto", "restarted"])
def test_another_length_or_learning_rate_is_one_warning(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if how == "restarted":
        monkeypatch.setenv("SLURM_JOB_ID", "7")
    rate = {"optim": {"base_lr": 0.1, "clip_grad": None}}
    path = interrupted(**rate)
    resume = {"directory": str(path), "checkpoint": str(path / "checkpoints" / "last.ckpt"), "auto": "auto"}.get(how)
    if how == "restarted":
        restart(monkeypatch, SLURM)
    choose(config(resume=resume, **rate))[0].unlock()
    assert caplog.text == ""
    changed = {"base_lr": 0.2, "clip_grad": None} if resume and how != "auto" else rate["optim"]
    run = choose(config(resume=resume, trainer={"max_steps": 9}, optim=changed))[0]
    assert run.path == path
    (record,) = caplog.records
    assert "trainer.max_steps=5 is now trainer.max_steps=9" in record.getMessage()
    assert ("optim.base_lr=0.1 is now optim.base_lr=0.2" in record.getMessage()) == (changed["base_lr"] == 0.2)


def test_a_system_without_flock_and_fork(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Windows."""
    monkeypatch.setattr(run_directory, "fcntl", None)
    monkeypatch.delattr(os, "register_at_fork")
    choose(config())
    assert "this file system has no locks (no flock)" in caplog.text


def test_auto_skips_what_is_finished_in_the_directory_of_a_sweep() -> None:
    place = Path("runs/study/seed-0")
    choose(config(), place)[0].unlock()
    save(place / "checkpoints" / "last.ckpt")
    (place / "summary.json").write_text("{}")
    run, checkpoint, reason = choose(config(resume="auto", sweep={"probes": ["knn"]}), place)
    assert (run.path, checkpoint, run.finished) == (place, None, True)
    assert reason == f"resume=auto: {place} is finished"
    run.unlock()
    for other, named in ({"seed": 1}, "seed is '1', not '0'"), ({"trainer": {"max_steps": 9}}, "trainer.max_steps=9"):
        with pytest.raises(ValueError, match=f"holds another run .{named}"):
            choose(config(resume="auto", **other), place)


def test_auto_finds_a_run_that_lacks_probes() -> None:
    path = interrupted()
    (path / "summary.json").write_text("{}")
    lacking = config(resume="auto", sweep={"probes": ["knn"]})
    run, _, _ = choose(lacking)
    assert (run.path, run.finished) == (path, True)
    run.unlock()
    (path / "probes" / "knn").mkdir(parents=True)
    (path / "probes" / "knn" / "summary.json").write_text("{}")
    assert choose(lacking)[0].path != path
