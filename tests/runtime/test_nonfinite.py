"""A loss or gradient that is not finite: never an update, the videos' names, and a clear end, or going on without."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from omegaconf import DictConfig, open_dict

from on_ranks import curve, newest, on_ranks
from tubelet import run
from tubelet.runtime import nonfinite
from tubelet.runtime.nonfinite import NonFinite

Config = Callable[..., DictConfig]
TESTS = Path(__file__).parents[1]


@pytest.fixture
def poisoned(tiny: Config) -> Config:
    """`tiny`, with three steps an epoch, of which the last is not finite."""

    def config(*more: str, loss: bool = True) -> DictConfig:
        cfg = tiny("trainer.max_epochs=3", "callbacks.checkpoints.every_n_steps=1", "callbacks.knn=null", *more)
        with open_dict(cfg):
            cfg.method._target_, cfg.method.loss = "on_ranks.Poisoned", loss
        return cfg

    return config


def rows(name: str = "try") -> list[dict[str, str]]:
    with (newest(name) / "nonfinite.csv").open() as file:
        return list(csv.DictReader(file))


def saved(name: str = "try") -> dict[str, Any]:
    return torch.load(newest(name) / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("loss", [True, False])
def test_the_run_ends_before_the_update_and_names_the_videos(
    poisoned: Config, monkeypatch: pytest.MonkeyPatch, loss: bool
) -> None:
    built: list[Any] = []
    build = run.build
    monkeypatch.setattr(run, "build", lambda *arguments: built.extend(build(*arguments)) or built)
    what = "loss" if loss else "gradient"
    with pytest.raises(FloatingPointError, match=rf"the {what} of step 2 is not finite: no up.* in .*nonfinite\.csv"):
        run.main(poisoned("data.batch_size=4", "trainer.accumulate=2", "trainer.max_steps=20", loss=loss))
    method, data, _ = built
    assert [row["step"] for row in rows()] == ["2"] * 4
    assert [row["rank"] for row in rows()] == ["0"] * 4
    assert [row["loss"] == "nan" for row in rows()] == [loss, loss, False, False]  # two batches were accumulated
    lines = [index for _, index in data._order.batch(4) + data._order.batch(5)]
    manifest = data.datasets["train"].manifest
    assert [row["path"] for row in rows()] == [manifest.record(line).path for line in lines]
    # the weights and the optimizer are those of the last checkpoint, which is of the step before
    assert saved()["global_step"] == 2
    assert all(torch.equal(value, saved()["state_dict"][name]) for name, value in method.state_dict().items())
    optimizer = method.optimizers(use_pl_optimizer=False)
    assert {int(state["step"]) for state in optimizer.state.values()} == {2}


def test_steps_are_skipped_up_to_a_limit_which_a_resumed_run_remembers(poisoned: Config) -> None:
    run.main(poisoned("trainer.max_epochs=1", "trainer.skip_nonfinite=1"))
    assert curve("try", "skipped_steps")[-1] == 1
    assert saved()["skipped_steps"] == 1
    assert all(value.isfinite().all() for value in saved()["state_dict"].values())
    assert sum(loss != loss for loss in curve("try")) == 1  # logged as it was
    with pytest.raises(FloatingPointError, match="skip_nonfinite=2 continues without this step"):
        run.main(poisoned("trainer.skip_nonfinite=1", f"resume={newest('try')}"))
    assert len(rows()) == 4  # of two steps
    run.main(poisoned("trainer.skip_nonfinite=3", f"resume={newest('try')}"))
    assert saved()["skipped_steps"] == 3
    assert saved()["global_step"] == 9


class Event:
    def synchronize(self) -> None:
        """Nothing to wait for on a CPU."""


@pytest.mark.parametrize("steps", [3, 9])
def test_on_a_gpu_a_step_is_looked_at_one_later_or_at_the_end(
    poisoned: Config, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setattr(nonfinite, "_record_event", lambda device: Event())
    with pytest.raises(FloatingPointError, match="of step 2 is"):
        run.main(poisoned("callbacks.checkpoints.every_n_steps=100", f"trainer.max_steps={steps}"))
    assert len(curve("try", "lr")) == 3


def test_on_a_gpu_a_step_is_looked_at_before_it_is_saved(poisoned: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonfinite, "_record_event", lambda device: Event())
    with pytest.raises(FloatingPointError, match="of step 2 is"):
        run.main(poisoned())
    assert saved()["global_step"] == 2


def test_a_scaler_that_overflows_is_no_reason_to_end(
    poisoned: Config, tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float16 on a CPU, as the scaler does it on a GPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60, backoff_factor=2.0**-30)
    build = run.build

    def build_in_float16(*arguments: Any) -> Any:
        method, data, trainer = build(*arguments)
        trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", scaler)
        return method, data, trainer

    monkeypatch.setattr(run, "build", build_in_float16)
    run.main(tiny("trainer.max_steps=5", "optim.clip_grad=0.01", "callbacks.knn=null"))
    norms = torch.tensor(curve("try", "grad_norm"))
    assert not norms[0].isfinite()
    assert norms[-1].isfinite()
    assert norms[-1] < 10  # unscaled before it was clipped
    assert not (newest("try") / "nonfinite.csv").exists()
    with pytest.raises(FloatingPointError, match="the loss of step"):
        run.main(poisoned("name=bad"))


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"trainer\.skip_nonfinite must not be negative, got -1"):
        NonFinite(-1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_all_ranks_end_by_the_error_of_one(poisoned: Config, strategy: str) -> None:
    two = ["trainer.devices=2", f"trainer.strategy={strategy}", "data.batch_size=4", "trainer.max_steps=20"]
    ended = on_ranks(2, [poisoned(*two)], check=False)
    assert ended.returncode == 1
    assert "FloatingPointError: the loss of step" in ended.stderr
    assert [row["rank"] for row in rows()] == ["0", "0", "1", "1"]
    assert [row["loss"] == "nan" for row in rows()] == [False, False, True, True]
    run.main(poisoned("stage=validate", f"weights={newest('try')}", "name=validation"))


@pytest.mark.slow
def test_the_program_ends_with_1_and_one_message(tiny_arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    arguments = tiny_arguments("method._target_=on_ranks.Poisoned", "callbacks.knn=null")
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, TESTS.parent / "train.py", *arguments],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, text=True, capture_output=True, timeout=250,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.count("error: the loss of step") == 1
    assert "Traceback" not in ended.stderr
