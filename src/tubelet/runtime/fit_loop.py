"""Lightning's loop over epochs, changed so that a run continues at exactly the batch where it stopped.

Lightning's own restart depends on the hook in which a checkpoint was saved. After the last batch of an epoch it skips
the validation of that epoch; after the very last step it skips the end of training. Here all counters are derived from
one, the number of processed micro-batches. If the end of an epoch or of training was not reached, it is run first.
"""

from __future__ import annotations

from typing import Any

import lightning as L

from tubelet.methods.base import method_of
from tubelet.runtime.lightning_internals import LightningFitLoop


class FitLoop(LightningFitLoop):
    """`_end_is_due`: the checkpoint was saved between the last batch of an epoch (or of training) and its end."""

    @classmethod
    def replace(cls, trainer: L.Trainer) -> None:
        """Put this loop in the place of the trainer's own."""
        old = trainer.fit_loop
        loop = cls(trainer, min_epochs=old.min_epochs, max_epochs=old.max_epochs)
        loop.epoch_loop = old.epoch_loop
        trainer.fit_loop = loop

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._end_is_due = False
        self._accumulate = self.trainer.accumulate_grad_batches

    def on_save_checkpoint(self) -> dict[str, Any]:
        return super().on_save_checkpoint() | {"accumulate": self.trainer.accumulate_grad_batches}

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        super().on_load_checkpoint(state_dict)
        self._accumulate = state_dict["accumulate"]

    def load_state_dict(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """Set all counters. A checkpoint always holds whole optimizer steps; if `trainer.accumulate` has changed, the
        same steps are another number of micro-batches.
        """
        super().load_state_dict(state_dict, prefix)
        # Any: these objects have more counters than Lightning declares
        progress: Any = self.epoch_loop.batch_progress
        epochs_in_all: Any = self.epoch_progress.total
        epochs_here: Any = self.epoch_progress.current
        accumulate = self.trainer.accumulate_grad_batches
        stepped = progress.total.processed // self._accumulate
        in_all, of_epoch = stepped * accumulate, method_of(self.trainer).plan.steps_per_epoch * accumulate
        if in_all == 0:
            self.restart_nothing()
            return
        # - 1: after the last batch of an epoch the run is still in that epoch, because its end has not run
        epoch = (in_all - 1) // of_epoch
        in_epoch = in_all - epoch * of_epoch
        self._end_is_due = in_epoch == of_epoch or 0 <= self.max_steps <= self.epoch_loop.global_step
        for epochs in (epochs_in_all, epochs_here):
            epochs.ready = epochs.started = epoch + 1
            epochs.processed = epochs.completed = epoch
        for batches, count in ((progress.total, in_all), (progress.current, in_epoch)):
            batches.ready = batches.started = batches.processed = batches.completed = count
            if not self._end_is_due:  # Lightning then treats the checkpoint as one saved in `on_train_batch_end`
                batches.completed -= 1
        progress.is_last_batch = in_epoch == of_epoch
        self.count_logged_steps(stepped - 1)  # the last one is counted when its end runs

    @property
    def skip(self) -> bool:
        return not self._end_is_due and super().skip

    @property
    def done(self) -> bool:
        return not self._end_is_due and super().done

    def advance(self) -> None:
        if not self._end_is_due:
            super().advance()
            return
        self._end_is_due = False
        self.epoch_loop.restarting = False
        self.end_batch()
