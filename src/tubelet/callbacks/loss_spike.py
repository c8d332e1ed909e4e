"""A warning when the training loss jumps, in the log and as an alert of W&B."""

from __future__ import annotations

import logging
import math
from collections import deque
from statistics import median
from typing import Any

import lightning as L

from tubelet.methods.parts import logs_every_n_steps

log = logging.getLogger(__name__)
_SIGMA = 1.4826  # standard deviation / median absolute deviation of a normal distribution
_FLOOR = 0.01  # smallest deviation / median, so that a loss that hardly moves does not raise false alarms


class LossSpike(L.Callback):
    """Compares every logged train/loss with the `window` values before it. A loss is a spike if it is more than
    `threshold` deviations above their median. It is reported once; the next report needs a loss below this limit first.
    """

    def __init__(self, window: int = 50, threshold: float = 10.0) -> None:
        if window < 2 or threshold <= 0:
            raise ValueError(
                f"callbacks.loss_spike: window must be at least 2 and threshold positive, got {window} and {threshold}"
            )
        self.window, self.threshold = window, threshold
        self._losses: deque[float] = deque(maxlen=window)
        self._reported = False
        self._step = 0

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """At this point the loss of the previous step is in the metrics, if that step was logged."""
        step = trainer.global_step
        if step == self._step or step % logs_every_n_steps(trainer) or "train/loss" not in trainer.callback_metrics:
            return
        self._step = step
        loss = float(trainer.callback_metrics["train/loss"])
        if math.isfinite(loss):  # tubelet.runtime.nonfinite handles the others
            self._compare(trainer, step - 1, loss)

    def _compare(self, trainer: L.Trainer, step: int, loss: float) -> None:
        if len(self._losses) == self.window:
            middle = median(self._losses)
            deviation = max(_SIGMA * median(abs(x - middle) for x in self._losses), _FLOOR * abs(middle))
            spike = loss > middle + self.threshold * deviation
            if spike and not self._reported and trainer.is_global_zero:
                _alert(f"train/loss is {loss:.4g} at step {step}; the median of {self.window} rows was {middle:.4g}")
            self._reported = spike
        self._losses.append(loss)

    def state_dict(self) -> dict[str, Any]:
        # "told" is the key in existing checkpoints
        return {"losses": list(self._losses), "told": self._reported, "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._losses.extend(state_dict["losses"])
        self._reported, self._step = state_dict["told"], state_dict["step"]


def _alert(text: str) -> None:
    import wandb

    log.warning(text)
    if wandb.run is not None:
        wandb.run.alert(title="loss spike", text=text)
