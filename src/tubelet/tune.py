"""A study of Optuna as a sweeper of Hydra: each trial is a job, with its own run directory and its own row.

The study is kept in `study.log` in the directory of the sweep. The same command continues it: a trial that was
interrupted goes on from its checkpoint, and then new ones follow until there are `trials`. Hydra's own plug-in
(hydra-optuna-sweeper 1.2) needs optuna<3, and neither continues a study nor stops a trial early.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from tubelet.config import check
from tubelet.config.resolvers import point
from tubelet.runtime.run_directory import RunDirectory
from tubelet.runtime.trials import PRUNED, open_study

STUDY = "study.log"


@dataclass
class Tuning:
    """One command of a study."""

    trials: int
    """In all, also those of earlier commands, failed ones included."""
    direction: str
    """maximize | minimize `objective`"""
    params: dict[str, str]
    """Key -> what to choose from, in Hydra's grammar: `interval(0, 1)`, `tag(log, interval(1e-4, 1e-2))`,
    `int(interval(1, 8))`, `choice(a, b)`, `range(0, 10)`. The command line may say the same of any key."""
    seed: int
    """Of the choices."""
    parallel: int
    """Trials at once."""
    config: DictConfig
    """That of the sweep, with the node `hydra`."""
    loader: Any
    """Hydra's loader of configs."""
    launcher: Any
    """Hydra's launcher of jobs."""
    file: Path = field(init=False)
    study: Any = field(init=False)

    def run(self, arguments: Sequence[str]) -> None:
        """Work on the study until it has all its trials. `arguments`: the overrides of the command line."""
        self._check_settings()
        parser = OverridesParser.create(self.loader)
        given = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        last = {override.get_key_element(): override for override in given}  # the command line comes last and wins
        space = {key: _choices(key, override) for key, override in last.items() if override.is_sweep_override()}
        fixed = [str(override.input_line) for override in last.values() if not override.is_sweep_override()]
        if not space:
            raise ValueError("hydra.sweeper.params: nothing to choose, for example optim.base_lr=interval(0.001,0.1)")
        first = {key: choices.low if hasattr(choices, "low") else choices.choices[0] for key, choices in space.items()}
        check(self.loader.load_sweep_config(self.config, _overrides(fixed, first)))

        run = RunDirectory(Path(self.config.hydra.sweep.dir))
        if not run.lock():
            raise ValueError(f"{run.path}: another process works on this study")
        try:
            self.file = run.path / STUDY
            self.study = open_study(self.file, self.direction == "maximize")
            self._check_is_the_same(fixed, {key: str(last[key].input_line).partition("=")[2] for key in space})
            self._complete(fixed, space)
        finally:
            run.unlock()

    def _complete(self, fixed: list[str], space: dict[str, Any]) -> None:
        for trial in self._trials("RUNNING"):  # of a command that was interrupted
            self._run([(trial.number, trial.params)], fixed)
        while (missing := self.trials - len(self.study.trials)) > 0:
            # another seed each time: a continued study must not draw its first settings again
            self.study = open_study(self.file, self.direction == "maximize", self.seed + len(self.study.trials))
            batch = [self.study.ask(space) for _ in range(min(self.parallel, missing))]
            self._run([(trial.number, trial.params) for trial in batch], fixed)
        self._print_best()

    def _check_settings(self) -> None:
        for name, number in (("trials", self.trials), ("parallel", self.parallel)):
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"hydra.sweeper.{name} must be a whole number of at least 1, got {number!r}")
        if self.direction not in ("maximize", "minimize"):
            raise ValueError(f"hydra.sweeper.direction is maximize or minimize, got {self.direction!r}")

    def _check_is_the_same(self, fixed: Sequence[str], choices: dict[str, str]) -> None:
        now = {"the rest": point(fixed), **choices}
        before = self.study.user_attrs.get("of", now)
        if before != now:
            changed = ", ".join(
                f"{key}: {before.get(key, 'fixed')}, now {now.get(key, 'fixed')}"
                for key in {**now, **before}
                if before.get(key) != now.get(key)
            )
            raise ValueError(f"{self.file} is a study of another command ({changed}); hydra.sweep.dir=DIR: a new place")
        self.study.set_user_attr("of", now)

    def _trials(self, state: str) -> list[Any]:
        return [trial for trial in self.study.trials if trial.state.name == state]

    def _run(self, batch: Sequence[tuple[int, dict[str, Any]]], fixed: Sequence[str]) -> None:
        """Run trials (number, settings), numbered in a row, and tell their results."""
        prunes = OmegaConf.select(self.config, "callbacks.pruning") is not None
        jobs = []
        for number, settings in batch:
            own = [f"callbacks.pruning.study={self.file}", f"callbacks.pruning.trial={number}"] if prunes else []
            jobs.append(_overrides([*fixed, *own], settings))
        returns = self.launcher.launch(jobs, initial_job_idx=batch[0][0])
        for (number, _), job in zip(batch, returns, strict=True):
            self._tell(number, job)

    def _tell(self, number: int, job: JobReturn) -> None:
        value = None
        if job.status == JobStatus.COMPLETED:
            value = job.return_value
            place: Any = job.hydra_cfg
            if (Path(place.hydra.runtime.output_dir) / PRUNED).exists():
                self.study.tell(number, state=_state("PRUNED"))
                return
            if value is None:
                print(f"trial {number}: the run does not log objective={self.config.objective}", file=sys.stderr)
        self.study.tell(number, value, _state("FAIL") if value is None else None)

    def _print_best(self) -> None:
        counts = {state: len(self._trials(state)) for state in ("COMPLETE", "PRUNED", "FAIL")}
        counted = ", ".join(f"{count} {state.lower()}" for state, count in counts.items() if count)
        if not counts["COMPLETE"]:
            raise ValueError(f"{self.file}: no trial has ended with a result ({counted}); error.txt says why")
        best = self.study.best_trial
        settings = " ".join(f"{key}={_text(value)}" for key, value in best.params.items())
        print(f"study: {counted}; best: {self.config.objective} {best.value:.4g} of trial {best.number}: {settings}")


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def _choices(key: str, override: Override) -> Any:
    """Hydra's sweep of a key as a distribution of Optuna. `int(interval(1, 8))` gives whole numbers."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not override.is_interval_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    interval = override.value()
    assert isinstance(interval, IntervalSweep)
    low: Any = interval.start
    high: Any = interval.end
    log = "log" in interval.tags
    if not low < high or (log and low <= 0):
        raise ValueError(f"{override.input_line}: the bounds must grow, and be above 0 with log")
    whole = isinstance(low, int) and isinstance(high, int)
    return (IntDistribution if whole else FloatDistribution)(low, high, log=log)


def _overrides(fixed: Sequence[str], settings: dict[str, Any]) -> list[str]:
    return [*fixed, *(f"{key}={_text(value)}" for key, value in settings.items())]


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
