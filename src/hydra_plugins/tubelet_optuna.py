"""The sweeper `hydra/sweeper=optuna`. Hydra looks for plug-ins in the package hydra_plugins alone, and imports all of
them in every command: so what it does is in tubelet.tune, and imported when it is used.
"""

from __future__ import annotations

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """The settings are those of tubelet.tune.Tuning."""

    def __init__(self, trials: int, direction: str, params: dict[str, str], seed: int, parallel: int) -> None:
        self.settings: dict[str, Any] = {
            "trials": trials, "direction": direction, "params": params, "seed": seed, "parallel": parallel
        }  # fmt: skip

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from tubelet.tune import Tuning

        assert self.hydra_context is not None
        assert self.config is not None
        loader = self.hydra_context.config_loader
        Tuning(**self.settings, config=self.config, loader=loader, launcher=self.launcher).run(arguments)
