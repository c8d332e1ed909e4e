import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from tubelet import run, storage
from tubelet.runtime import checkpoints
from tubelet.runtime.checkpoints import Checkpoints
from tubelet.runtime.saving import SaveError, Saver, finish, host_copy

Tiny = Callable[..., DictConfig]
SAVING = ["callbacks.checkpoints.every_n_steps=2", "callbacks.checkpoints.monitor=val/loss",
          "callbacks.checkpoints.mode=min", "trainer.max_steps=7", "trainer.max_epochs=9",
          "callbacks.knn=null"]  # fmt: skip


def only_run() -> Path:
    (path,) = Path("runs/try").iterdir()
    return path


def step_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


def with_callback(cfg: DictConfig, kind: str) -> DictConfig:
    cfg.callbacks.checkpoints._target_ = f"{__name__}.{kind}"
    return cfg


def test_last_previous_best_and_kept(tiny: Tiny) -> None:
    run.main(tiny(*SAVING, "callbacks.checkpoints.keep_every_n_steps=3"))
    folder = only_run() / "checkpoints"
    steps = {path.name: step_of(path) for path in folder.iterdir()}  # all load with weights_only
    best = steps.pop("best.ckpt")
    assert steps == {"last.ckpt": 7, "previous.ckpt": 6, "step=3.ckpt": 3, "step=6.ckpt": 6}
    assert best in (3, 6)  # 3 steps an epoch
    assert all(storage.damage(path) is None for path in folder.iterdir())


def test_intervals_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="every_n_steps 0"):
        Checkpoints(every_n_steps=0)


def test_a_damaged_checkpoint_is_passed_by(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    run.main(tiny(*SAVING))
    last = only_run() / "checkpoints" / "last.ckpt"
    expected = torch.load(last, weights_only=True)
    for damaged in (last.read_bytes()[:-5000], b""):
        last.write_bytes(damaged)
        run.main(tiny(*SAVING, f"resume={only_run()}"))
        output = " ".join(capsys.readouterr().out.split())
        assert "last.ckpt cannot be read" in output
        assert "from previous.ckpt" in output
        found = torch.load(last, weights_only=True)
        assert found["global_step"] == 7
        assert all(torch.equal(value, found["state_dict"][name]) for name, value in expected["state_dict"].items())
    last.write_bytes(b"")
    with pytest.raises(ValueError, match=r"last\.ckpt: cannot be read: .* takes the newest checkpoint that is whole"):
        run.main(tiny(*SAVING, f"resume={last}"))


def test_nothing_whole_is_left(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    run.main(tiny(*SAVING))
    first = only_run()
    for path in (first / "checkpoints").iterdir():
        path.write_bytes(b"")
    (first / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"there is no checkpoint .*last\.ckpt cannot be read"):
        run.main(tiny(*SAVING, f"resume={first}"))
    run.main(tiny(*SAVING, "resume=auto"))
    assert len(list(Path("runs/try").iterdir())) == 2
    assert "last.ckpt cannot be read" in " ".join(capsys.readouterr().out.split())


class Limited(Saver):
    """No checkpoint can grow beyond 10 kB. The limit is the whole process's, whose output may be a file: it waits."""

    def start(self, *arguments: Any) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        try:
            super().start(*arguments)
            while not self.idle:
                time.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class FullDisk(Checkpoints):
    """From step 3 to step `until`."""

    until = 5

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        finish(trainer)
        if trainer.global_step == 3:
            trainer.strategy.checkpoint_io = Limited()
        if trainer.global_step == self.until:
            seen = {path.name: step_of(path) for path in only_run().glob("checkpoints/*")}
            assert seen == {"last.ckpt": 2}, seen  # and nothing half written
            trainer.strategy.checkpoint_io = Saver()
        super().on_train_batch_end(trainer, *arguments)


def test_a_save_that_fails_is_tried_again(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    run.main(with_callback(tiny(*SAVING, "callbacks.checkpoints.monitor=null"), "FullDisk"))
    assert step_of(only_run() / "checkpoints" / "last.ckpt") == 7
    assert step_of(only_run() / "checkpoints" / "previous.ckpt") == 6
    (message,) = [record.getMessage() for record in caplog.records if "cannot save" in record.getMessage()]
    assert "last.ckpt: [Errno 27] File too large; training continues and tries again in 2 steps" in message


def test_the_last_save_must_not_fail(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FullDisk, "until", 100)
    with pytest.raises(SaveError, match=r"cannot save .*File too large"):
        run.main(with_callback(tiny(*SAVING, "callbacks.checkpoints.monitor=null"), "FullDisk"))
    assert {path.name: step_of(path) for path in only_run().glob("checkpoints/*")} == {"last.ckpt": 2}
    assert not (only_run() / "summary.json").exists()


@pytest.mark.parametrize(("mode", "values", "saved"), [("max", (2.0, 1.0, 3.0), 3.0), ("min", (1.0, 2.0, 3.0), 2.0)])
def test_a_value_that_could_not_be_saved_is_not_the_best(
    mode: Any, values: tuple[float, ...], saved: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = Checkpoints(monitor="val/top1", mode=mode)
    tried: list[float | None] = []

    waiting: list[Callable[[], None]] = []

    def fails_once(trainer: Any, name: str, failed: Callable[[SaveError], None]) -> None:
        assert name == "best.ckpt"
        tried.append(callback.state_dict()["best"])
        if len(tried) == 1:  # the thread fails; training hears of it at the next save
            waiting.append(lambda: failed(SaveError("no")))

    monkeypatch.setattr(checkpoints, "save_while_training", fails_once)
    monkeypatch.setattr(checkpoints, "finish", lambda trainer: waiting and waiting.pop()())
    for value in values:
        trainer = SimpleNamespace(
            callback_metrics={"val/top1": value}, state=SimpleNamespace(fn="fit"), loggers=[], is_global_zero=True
        )
        callback.on_validation_end(trainer, None)  # type: ignore[arg-type]
    assert tried == [values[0], values[1], *([saved] if mode == "max" else [])]
    assert callback.best == saved


def test_what_is_not_the_disk_is_an_error_at_once(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: Any, **__: Any) -> None:
        raise TypeError("cannot pickle that")

    monkeypatch.setattr(Saver, "write", write)
    with pytest.raises(TypeError, match="cannot pickle that"):
        run.main(tiny(*SAVING))


def test_leftovers_of_a_killed_run_are_removed(tiny: Tiny) -> None:
    run.main(tiny(*SAVING))
    path = only_run()
    (path / "summary.json").unlink()
    (path / "checkpoints" / ".last.ckpt.part").write_bytes(b"half")
    (path / "checkpoints" / ".best.ckpt.part").mkdir()
    run.main(tiny(*SAVING, "resume=auto"))
    assert not list(path.rglob("*.part"))


class ReadOnly(FullDisk):
    """Nothing can be written to checkpoints/ from step 3 to step 5."""

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        finish(trainer)
        if trainer.global_step == 3:
            (only_run() / "checkpoints").chmod(0o555)
        if trainer.global_step == 5:
            (only_run() / "checkpoints").chmod(0o755)
            assert {path.name: step_of(path) for path in only_run().glob("checkpoints/*")} == {"last.ckpt": 2}
        Checkpoints.on_train_batch_end(self, trainer, *arguments)


def test_a_read_only_directory(tiny: Tiny, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an unprivileged user: root may write anywhere."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(videos.parent, folder / "videos")
        manifest = folder / "videos" / videos.name
        cfg = with_callback(tiny(*SAVING, f"data.train={manifest}", f"data.val={manifest}"), "ReadOnly")
        monkeypatch.chdir(folder)
        root = os.getuid() == 0
        if root:
            run.main(tiny(*SAVING))  # all that is imported on the way is imported by root: nobody may not be able to
            shutil.rmtree("runs")
            shutil.chown(folder, "nobody")
            manifest.parent.chmod(0o755)
            os.seteuid(65534)  # in this process: a fork would wait for ever for the threads of torch
        try:
            run.main(cfg)
        finally:
            if root:
                os.seteuid(0)
        assert step_of(only_run() / "checkpoints" / "last.ckpt") == 7


class Ballast(FullDisk):
    """The disk is full from step 3 to step 5."""

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        finish(trainer)
        ballast = Path("runs/ballast")
        if trainer.global_step == 3:
            with ballast.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
        if trainer.global_step == 5:
            assert {path.name: step_of(path) for path in only_run().glob("checkpoints/*")} == {"last.ckpt": 2}
            ballast.unlink()
        Checkpoints.on_train_batch_end(self, trainer, *arguments)


@pytest.mark.cluster
def test_a_full_disk(tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "runs").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path / "runs"], check=True)
    try:
        run.main(with_callback(tiny(*SAVING, "callbacks.checkpoints.monitor=null"), "Ballast"))
        assert step_of(only_run() / "checkpoints" / "last.ckpt") == 7
        assert "last.ckpt: [Errno 28] No space left on device; training continues" in caplog.text
        steps = [row.split(",")[1] for row in (only_run() / "metrics.csv").read_text().splitlines()]
        assert len(steps) > 7  # its rows have waited
    finally:
        subprocess.run(["umount", tmp_path / "runs"], check=True)


@pytest.mark.slow
def test_a_last_save_that_fails_ends_train_py_with_1(tiny_arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    arguments = tiny_arguments(*SAVING, "callbacks.checkpoints._target_=test_checkpoints.NeverEnough")
    paths = f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"
    train = str(Path(__file__).parents[2] / "train.py")
    done = subprocess.run(
        [sys.executable, train, *arguments], cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, capture_output=True
    )
    assert done.returncode == 1
    assert b"SaveError: cannot save" in done.stderr


class NeverEnough(FullDisk):
    until = 100


class OneStepOn(Checkpoints):
    """Says when one step is done after the save of step 2."""

    reached = Event()

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 3:
            assert not list(Path("runs").rglob("*.ckpt"))
            self.reached.set()


def test_training_continues_while_a_checkpoint_is_written(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint holds the state of its step, although the weights have changed before it is on the disk."""
    write = Saver.write

    def late(saver: Saver, checkpoint: dict[str, Any], path: Path) -> None:
        assert OneStepOn.reached.wait(60)
        write(saver, checkpoint, path)

    every_other = [*SAVING, "callbacks.checkpoints.monitor=null", "callbacks.checkpoints.keep_every_n_steps=2"]
    run.main(tiny(*every_other))
    expected = {path.name: torch.load(path, weights_only=True) for path in Path("runs").rglob("*.ckpt")}
    shutil.rmtree("runs")
    monkeypatch.setattr(Saver, "write", late)
    run.main(with_callback(tiny(*every_other), "OneStepOn"))
    found = {path.name: torch.load(path, weights_only=True) for path in Path("runs").rglob("*.ckpt")}
    assert found.keys() == expected.keys() >= {"step=2.ckpt", "step=6.ckpt", "last.ckpt"}
    for name, checkpoint in expected.items():
        assert all(
            torch.equal(value, found[name]["state_dict"][key]) for key, value in checkpoint["state_dict"].items()
        )


def test_a_copy_shares_nothing_with_the_original() -> None:
    state: Any = OrderedDict(a=torch.arange(4.0)[::2], b=[torch.ones(2), ({"c": torch.zeros(1)},)], d={"e": [1]})
    state._metadata = {"": 1}
    copy = host_copy(state)
    assert type(copy) is OrderedDict
    assert copy._metadata == {"": 1}
    for tensor in (state["a"], state["b"][0], state["b"][1][0]["c"]):
        tensor += 1
    state["d"]["e"].append(2)
    assert copy["a"].tolist() == [0.0, 2.0]
    assert (copy["b"][0].tolist(), copy["b"][1][0]["c"].tolist(), copy["d"]) == ([1.0, 1.0], [0.0], {"e": [1]})
