"""A study of Optuna: what it asks for, what it is told, and that the same command continues it."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from tubelet.callbacks.pruning import Pruning
from tubelet.config import check
from tubelet.config.compose import compose_with_unchosen, conf_directory
from tubelet.report.table import find_runs
from tubelet.runtime.trials import PRUNED, open_study
from tubelet.tune import Tuning

Result = Callable[[int, dict[str, str]], Any]


class Launcher:
    """Jobs that train nothing."""

    def __init__(self, folder: Path, result: Result) -> None:
        self.folder, self.result = folder, result
        self.jobs: list[tuple[int, dict[str, str]]] = []

    def launch(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        return [self.run(initial_job_idx + i, dict(x.split("=", 1) for x in job)) for i, job in enumerate(jobs)]

    def run(self, number: int, settings: dict[str, str]) -> JobReturn:
        self.jobs.append((number, settings))
        (self.folder / str(number)).mkdir(exist_ok=True)
        place = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(self.folder / str(number))}}})
        try:
            value = self.result(number, settings)
        except ValueError as error:
            return JobReturn(status=JobStatus.FAILED, hydra_cfg=place, _return_value=error)
        return JobReturn(status=JobStatus.COMPLETED, hydra_cfg=place, _return_value=value)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Launcher]]:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        cfg = compose(
            "config",
            [
                "experiment=tune_finetune",
                "hydra.job.num=0",
                f"hydra.sweep.dir={tmp_path}",
                "hydra.runtime.output_dir=x",
            ],
            return_hydra_config=True,
        )

        def run(result: Result, *arguments: str, **settings: Any) -> Launcher:
            defaults = {"direction": "maximize", "params": cfg.hydra.sweeper.params, "seed": 0, "parallel": 1}
            loader, launcher = GlobalHydra.instance().config_loader(), Launcher(tmp_path, result)
            Tuning(**{**defaults, **settings}, config=cfg, loader=loader, launcher=launcher).run(
                ["experiment=tune_finetune", "method=scratch", *arguments]
            )
            return launcher

        yield run


def test_a_study_and_its_continuation(
    start: Callable[..., Launcher], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def result(number: int, settings: dict[str, str]) -> float | None:
        if number == 1:
            raise ValueError("no such file")
        if number == 2:
            (tmp_path / "2" / PRUNED).write_text("worse\n")
        if number == 3:
            raise KeyboardInterrupt
        return float(settings["optim.base_lr"])

    with pytest.raises(KeyboardInterrupt):
        start(result, "seed=1", trials=5)
    interrupted = start(lambda number, settings: 0.5 if number == 3 else 0.1, "seed=1", trials=5)
    assert [number for number, _ in interrupted.jobs] == [3, 4]
    states = [trial.state.name for trial in open_study(tmp_path / "study.log", True).trials]
    assert states == ["COMPLETE", "FAIL", "PRUNED", "COMPLETE", "COMPLETE"]
    _, job = interrupted.jobs[0]
    assert 0.002 <= float(job["optim.base_lr"]) <= 0.064
    assert job["encoder.drop_path"] in ("0.0", "0.1", "0.2")
    assert (job["seed"], job["callbacks.pruning.trial"]) == ("1", "3")
    assert job["callbacks.pruning.study"] == str(tmp_path / "study.log")
    assert "study: 3 complete, 1 pruned, 1 fail; best: val/top1 0.5 of trial 3" in capsys.readouterr().out
    assert start(result, "seed=1", trials=5).jobs == []
    with pytest.raises(
        ValueError,
        match=r"of another command \(the rest: .*seed-1, now .*seed-2\)",
    ):
        start(result, "seed=2", trials=6)


def test_the_command_line_may_choose_other_settings(start: Callable[..., Launcher]) -> None:
    choices = ["trainer.max_epochs=range(2,5)", "optim.base_lr=0.1", "data.batch_size=int(interval(1,8))"]
    jobs = start(lambda *_: 0.0, *choices, trials=4, parallel=2).jobs
    assert {job["trainer.max_epochs"] for _, job in jobs} <= {"2", "3", "4"}
    assert {job["optim.base_lr"] for _, job in jobs} == {"0.1"}
    assert all(1 <= int(job["data.batch_size"]) <= 8 for _, job in jobs)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["encoder.no=interval(0,1)"], {}, r"encoder\.no"),
        ([], {"params": {}}, "nothing to choose"),
        (["optim.base_lr=interval(1,0.1)"], {}, r"optim\.base_lr=interval\(1,0\.1\): the bounds must grow"),
        (["optim.base_lr=tag(log,interval(0.0,0.1))"], {}, "above 0 with log"),
        ([], {"direction": "up"}, r"hydra\.sweeper\.direction is maximize or minimize, got 'up'"),
        ([], {"trials": 0}, r"hydra\.sweeper\.trials must be a whole number of at least 1, got 0"),
    ],
)
def test_mistakes_are_found_before_a_trial(
    start: Callable[..., Launcher], tmp_path: Path, arguments: list[str], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        start(lambda *_: 0.0, *arguments, **{"trials": 1, **settings})
    assert not (tmp_path / "study.log").exists()


def test_the_worse_half_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "study.log"
    study = open_study(file, maximise=True)
    for _ in range(4):
        trial = study.ask()
        trial.report(0.5, 5)
        study.tell(trial, 0.5)
    study.ask()
    plan = SimpleNamespace(plan=SimpleNamespace(total_steps=100))
    monkeypatch.setattr("tubelet.callbacks.pruning.method_of", lambda _: plan)
    (tmp_path / "4").mkdir()
    trainer: Any = SimpleNamespace(
        global_step=50, is_global_zero=True, should_stop=False, default_root_dir=str(tmp_path / "4"),
        callback_metrics={"val/top1": torch.tensor(0.2)}, state=SimpleNamespace(fn="fit"),
        strategy=SimpleNamespace(broadcast=lambda value: value),
    )  # fmt: skip
    Pruning().on_validation_end(trainer, None)  # type: ignore[arg-type]
    assert not trainer.should_stop  # a run of no study
    callback = Pruning(str(file), 4)
    callback.on_validation_end(trainer, None)  # type: ignore[arg-type]
    assert trainer.should_stop
    assert study.trials[4].intermediate_values == {5: pytest.approx(0.2)}
    (tmp_path / "4" / "checkpoints").mkdir()
    (tmp_path / "4" / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "4" / "summary.json").write_text("{}")
    (run,) = find_runs(tmp_path)
    assert (run.state, run.finished) == (
        "pruned: val/top1 0.2 at 50 % of training: worse than the median", False,
    )  # fmt: skip

    again = Pruning(str(file), 4)  # of the process that continues the run
    again.load_state_dict(callback.state_dict())
    trainer.should_stop = False
    again.on_validation_end(trainer, None)  # type: ignore[arg-type]
    assert not trainer.should_stop  # this tenth was reported already
    with pytest.raises(ValueError, match="does not log val/map"):
        Pruning(str(file), 4, monitor="val/map").on_validation_end(trainer, None)  # type: ignore[arg-type]


def test_what_an_agent_of_wandb_runs_is_a_valid_command() -> None:
    sweep = yaml.safe_load((Path(__file__).parents[1] / "docs" / "wandb_sweep.yaml").read_text())
    assert sweep["command"][:3] == ["${env}", "${interpreter}", "${program}"]
    assert sweep["command"][-1] == "${args_no_hyphens}"  # key=value for each parameter
    for end in (0, -1):
        chosen = {k: (p.get("values") or [p.get("min"), p.get("max")])[end] for k, p in sweep["parameters"].items()}
        fixed = [word for word in sweep["command"] if re.match(r"[\w.]+=", word)]
        check(compose_with_unchosen(*fixed, *(f"{key}={value}" for key, value in chosen.items()))[0])
