"""Stops a trial of a study early if it is worse than the others at the same time."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import lightning as L

from tubelet.methods.base import method_of
from tubelet.runtime.trials import PRUNED, open_trial
from tubelet.storage import write_text


class Pruning(L.Callback):
    """Reports `monitor` to Optuna once in each tenth of training, so that trials of different lengths are compared at
    the same share of their schedules, and stops the run if Optuna says so. pruned.txt then says when.

    study: the journal of the study, and `trial` the number in it. None: a run of no study, and nothing is done.
    """

    def __init__(
        self,
        study: str | None = None,
        trial: int | None = None,
        monitor: str = "val/top1",
        mode: Literal["max", "min"] = "max",
    ) -> None:
        self.study, self.trial, self.monitor, self.mode = study, trial, monitor, mode
        self.reported = 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        tenth = 10 * trainer.global_step // method_of(trainer).plan.total_steps
        if self.study is None or self.trial is None or trainer.state.fn != "fit" or not self.reported < tenth < 10:
            return
        self.reported = tenth
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(name for name in trainer.callback_metrics if name.startswith("val/"))
            raise ValueError(f"callbacks.pruning.monitor: the run does not log {self.monitor} (it logs {known})")
        stop = trainer.is_global_zero and self._is_worse(Path(self.study), self.trial, trainer)
        if trainer.strategy.broadcast(stop):
            trainer.should_stop = True

    def _is_worse(self, study: Path, number: int, trainer: L.Trainer) -> bool:
        value = float(trainer.callback_metrics[self.monitor])
        trial = open_trial(study, number, self.mode == "max")
        trial.report(value, self.reported)
        worse: bool = trial.should_prune()
        if worse:
            reason = f"{self.monitor} {value:.4g} at {self.reported * 10} % of training: worse than the median\n"
            write_text(Path(trainer.default_root_dir) / PRUNED, reason)
        return worse

    def state_dict(self) -> dict[str, object]:
        return {"reported": self.reported}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self.reported = int(str(state_dict["reported"]))
