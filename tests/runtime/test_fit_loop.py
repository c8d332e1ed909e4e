"""A run that stops in any hook and is continued there: all that was due is done once. tests/test_kills.py kills it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from omegaconf import DictConfig

from tubelet import run
from tubelet.loggers.metrics_csv import read_metrics

Tiny = Callable[..., DictConfig]
SHORT = ["callbacks.checkpoints.every_n_steps=1", "callbacks.knn=null", "trainer.accumulate=2", "trainer.max_epochs=9",
         "+callbacks.stop={_target_: test_fit_loop.Stop}"]  # fmt: skip


class Stop(L.Callback):
    """Raises in one hook, at one step; counts how often some were called."""

    at: tuple[str, int] | None = None
    called: list[str]

    def _reach(self, hook: str, trainer: L.Trainer) -> None:
        Stop.called.append(hook)
        if Stop.at == (hook, trainer.global_step):
            raise InterruptedError(hook)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._reach("validation_start", trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._reach("validation_batch_end", trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._reach("validation_end", trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._reach("epoch_start", trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._reach("epoch_end", trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._reach("end", trainer)


@pytest.fixture(autouse=True)
def _not_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stop, "at", None)
    monkeypatch.setattr(Stop, "called", [], raising=False)


def only_run(name: str = "try") -> Path:
    (path,) = Path(f"runs/{name}").iterdir()
    return path


def last(path: Path) -> dict[str, Any]:
    return torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)


def rows(path: Path) -> list[str]:
    return (path / "metrics.csv").read_text().splitlines()


@pytest.mark.parametrize(
    ("every", "steps"),  # epochs between two validations; 3 steps are an epoch
    [(2, 5), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((1, 5), (1, 6), (2, 6)))],
)
def test_every_end_is_made_up_for(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, steps: int, every: int) -> None:
    length = [*SHORT, f"trainer.max_steps={steps}", f"trainer.val_every_n_epochs={every}"]
    metrics = run.main(tiny(*length, "name=whole"))
    whole = list(Stop.called)
    stops = [("validation_start", 3), ("validation_batch_end", 3), ("validation_end", 3), ("epoch_end", 3),
             ("epoch_start", 3), ("epoch_end", steps), ("end", steps)]  # fmt: skip
    stops = [stop for stop in stops if not (stop[0].startswith("validation") and every == 2)]
    for stop in stops:
        monkeypatch.setattr(Stop, "at", stop)
        with pytest.raises(InterruptedError, match=stop[0]):
            run.main(tiny(*length, "resume=auto"))
    monkeypatch.setattr(Stop, "at", None)
    monkeypatch.setattr(Stop, "called", [])
    assert run.main(tiny(*length, "resume=auto")) == metrics
    due = "validation_start" if steps == 6 else "epoch_end"  # training ends with an epoch, or in the middle of one
    end = whole.index("end")
    assert Stop.called == whole[end - whole[:end][::-1].index(due) - 1 :]
    assert rows(only_run()) == rows(only_run("whole"))
    expected, found = last(only_run("whole")), last(only_run())
    assert found["loops"]["fit_loop"] == expected["loops"]["fit_loop"]
    assert all(torch.equal(value, found["state_dict"][name]) for name, value in expected["state_dict"].items())


def test_a_run_that_stops_early_is_stopped_there_once(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss falls, and with mode=max that is no better."""
    early = "{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss, mode: max, patience: 1}"
    job = [*SHORT, "callbacks.checkpoints.every_n_steps=4", "trainer.max_steps=9", f"+callbacks.early={early}"]
    metrics = run.main(tiny(*job, "name=whole"))
    assert last(only_run("whole"))["global_step"] == 6
    for stop in ("validation_batch_end", "epoch_end", "end"):
        monkeypatch.setattr(Stop, "at", (stop, 6))
        with pytest.raises(InterruptedError, match=stop):
            run.main(tiny(*job, "resume=auto"))
    monkeypatch.setattr(Stop, "at", None)
    assert run.main(tiny(*job, "resume=auto")) == metrics
    assert rows(only_run()) == rows(only_run("whole"))


@pytest.mark.parametrize("first", [3, 4])
def test_a_finished_run_goes_on_for_more_steps(tiny: Tiny, first: int) -> None:
    """The schedule is that of the longer run from there on; no epoch is lost or done twice."""
    run.main(tiny(*SHORT, f"trainer.max_steps={first}"))
    run.main(tiny(*SHORT, "trainer.max_steps=9", f"resume={only_run()}"))
    curves = read_metrics(only_run() / "metrics.csv")
    assert [step for step, _ in curves["train/loss"]] == list(range(9))
    assert [step for step, _ in curves["val/loss"]] == [2, 5, 8]
    assert [epoch for _, epoch in curves["epoch"]] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_accumulation_goes_on_with_the_same_samples(tiny: Tiny, before: int, after: int) -> None:
    run.main(tiny(*SHORT, f"trainer.accumulate={before}", "trainer.max_steps=6", "name=whole"))
    run.main(tiny(*SHORT, f"trainer.accumulate={before}", "trainer.max_steps=4"))
    run.main(tiny(*SHORT, f"trainer.accumulate={after}", "trainer.max_steps=6", f"resume={only_run()}"))
    whole, parts = (read_metrics(only_run(name) / "metrics.csv") for name in ("whole", "try"))
    assert [step for step, _ in parts["train/loss"]] == list(range(6))
    assert [step for step, _ in parts["val/loss"]] == [2, 5]
    assert last(only_run())["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"] == 6 * after
    assert parts["val/loss"][0] == whole["val/loss"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.batch_size=4", r"data\.batch_size is 4, but was 2"),
        ("seed=5", "seed is 5, but was 0"),
        ("data.train=fewer.csv", r"the number of videos in data\.train is 5, but was 6"),
    ],
)
def test_another_order_is_refused(tiny: Tiny, videos: Path, change: str, message: str) -> None:
    Path("fewer.csv").write_text("path\n" + "".join(f"{videos.parent / f'{i}.mp4'}\n" for i in range(5)))
    run.main(tiny(*SHORT, "trainer.max_steps=2"))
    with pytest.raises(ValueError, match=message):
        run.main(tiny(*SHORT, "trainer.max_steps=3", f"resume={only_run()}", change))
