"""A study of Optuna as a sweeper of Hydra: each trial is a job, with its own run directory and its own row.

The study is kept in `study.log` in the directory of the sweep. The same command continues it: a trial that was
interrupted goes on from its checkpoint, and then new ones follow until there are `trials`. Hydra's own plug-in
(hydra-optuna-sweeper 1.2) needs optuna<3, and neither continues a study nor stops a trial early.

Hydra looks for plug-ins in the package hydra_plugins alone, and imports all of them in every command: what is slow to
import is imported where it is used.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

STUDY = "study.log"


class OptunaSweeper(Sweeper):
    """Args:
    trials: in all, also those of earlier commands, failed ones included.
    direction: maximize | minimize `objective`.
    params: key -> what to choose from, in Hydra's grammar: `interval(0, 1)`, `tag(log, interval(1e-4, 1e-2))`,
        `int(interval(1, 8))`, `choice(a, b)`, `range(0, 10)`. The command line may say the same of any key.
    seed: of the choices.
    parallel: trials at once.
    """

    config: Any
    launcher: Any
    hydra_context: Any

    def __init__(
        self, trials: int, direction: str, params: dict[str, str] | None = None, seed: int = 0, parallel: int = 1
    ) -> None:
        for name, number in (("trials", trials), ("parallel", parallel)):
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"hydra.sweeper.{name} must be a whole number of at least 1, got {number!r}")
        if direction not in ("maximize", "minimize"):
            raise ValueError(f"hydra.sweeper.direction is maximize or minimize, got {direction!r}")
        self.trials, self.maximise, self.params = trials, direction == "maximize", params or {}
        self.seed, self.parallel = seed, parallel

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from tubelet.config import check
        from tubelet.runtime.run_directory import RunDirectory

        parser = OverridesParser.create(self.hydra_context.config_loader)
        given = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        last = {override.get_key_element(): override for override in given}  # the command line comes last and wins
        space = {key: _choices(key, override) for key, override in last.items() if override.is_sweep_override()}
        fixed = [str(override.input_line) for override in last.values() if not override.is_sweep_override()]
        if not space:
            raise ValueError("hydra.sweeper.params: nothing to choose, for example optim.base_lr=interval(0.001,0.1)")
        first = {key: choices.low if hasattr(choices, "low") else choices.choices[0] for key, choices in space.items()}
        check(self.hydra_context.config_loader.load_sweep_config(self.config, _overrides(fixed, first)))

        run = RunDirectory(Path(self.config.hydra.sweep.dir))
        if not run.lock():
            raise ValueError(f"{run.path}: another process works on this study")
        try:
            self._study(run.path / STUDY, fixed, space)
        finally:
            run.unlock()

    def _study(self, file: Path, fixed: list[str], space: dict[str, Any]) -> None:
        from tubelet.runtime.trials import open_study

        self.file, self.study = file, open_study(file, self.maximise)
        self._check_is_the_same(fixed, space)
        for trial in self._trials("RUNNING"):  # of a command that was interrupted
            self._run([(trial.number, trial.params)], fixed)
        while (missing := self.trials - len(self.study.trials)) > 0:
            # another seed each time: a continued study must not draw its first settings again
            self.study = open_study(file, self.maximise, self.seed + len(self.study.trials))
            batch = [self.study.ask(space) for _ in range(min(self.parallel, missing))]
            self._run([(trial.number, trial.params) for trial in batch], fixed)
        self._print_best()

    def _check_is_the_same(self, fixed: Sequence[str], space: dict[str, Any]) -> None:
        from tubelet.config.resolvers import point

        now = {"command": point(fixed), "choices": {key: str(choices) for key, choices in sorted(space.items())}}
        before = self.study.user_attrs.get("of")
        if before not in (None, now):
            changed = " and ".join(
                f"{name} {before[name]}, this command has {now[name]}" for name in now if now[name] != before[name]
            )
            raise ValueError(f"{self.file} is a study of another command: {changed}; hydra.sweep.dir=DIR: a new place")
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
        from tubelet.runtime.trials import PRUNED

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
