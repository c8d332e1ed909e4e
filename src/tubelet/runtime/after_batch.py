"""A moment that Lightning has no hook for: a batch is done and its metrics are logged, and nothing else has begun."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L


def after_batch(trainer: L.Trainer, function: Callable[[L.Trainer], None]) -> None:
    """Call `function` after every training batch: before a validation, and before the wait for the next batch, which a
    broken loader may make long. What was asked for last is called first.
    """
    loop = trainer.fit_loop.epoch_loop
    go_on = loop.on_advance_end

    def on_advance_end(*arguments: Any) -> None:
        function(trainer)
        go_on(*arguments)

    loop.on_advance_end = on_advance_end
