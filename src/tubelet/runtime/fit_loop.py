"""Lightning's loop over epochs, taken up again at exactly the batch where it was left.

Lightning's own restart depends on the hook a checkpoint was saved in: after the last batch of an epoch it skips that
epoch's validation, and after the last step of all it skips the end of training. Here every counter follows from one,
the micro-batches that were processed, and the ends that are still due are made up for: of the epoch, and of training.
"""

from __future__ import annotations

from typing import Any

import lightning as L

from tubelet.methods.base import method_of
from tubelet.runtime.lightning_internals import LightningFitLoop


class FitLoop(LightningFitLoop):
    @classmethod
    def replace(cls, trainer: L.Trainer) -> None:
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
        """A checkpoint is always of a whole optimizer step; another accumulation counts other micro-batches for it."""
        super().load_state_dict(state_dict, prefix)
        # of types that count more than Lightning declares
        progress: Any = self.epoch_loop.batch_progress
        epochs_in_all: Any = self.epoch_progress.total
        epochs_here: Any = self.epoch_progress.current
        accumulate = self.trainer.accumulate_grad_batches
        stepped = progress.total.processed // self._accumulate
        in_all, of_epoch = stepped * accumulate, method_of(self.trainer).plan.steps_per_epoch * accumulate
        if in_all == 0:
            self.restart_nothing()
            return
        epoch = (in_all - 1) // of_epoch
        in_epoch = in_all - epoch * of_epoch
        self._end_is_due = in_epoch == of_epoch or 0 <= self.max_steps <= self.epoch_loop.global_step
        for epochs in (epochs_in_all, epochs_here):
            epochs.ready = epochs.started = epoch + 1
            epochs.processed = epochs.completed = epoch
        for batches, count in ((progress.total, in_all), (progress.current, in_epoch)):
            batches.ready = batches.started = batches.processed = batches.completed = count
            if not self._end_is_due:  # what Lightning takes for a checkpoint saved in `on_train_batch_end`
                batches.completed -= 1
        progress.is_last_batch = in_epoch == of_epoch
        self.count_logged_steps(stepped - 1)  # the last is counted when its end is made up for

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
