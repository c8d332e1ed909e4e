"""Every private name of Lightning and torch that tubelet uses. No other file touches one.

A private name may go away in any release. tests/runtime/test_lightning_internals.py names the one that is gone, and
finds private names in other files. Also here: public names of Lightning's private loops, which are no safer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import lightning as L
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.strategies import ModelParallelStrategy


class LightningFitLoop(_FitLoop):
    """Lightning's loop over epochs, to derive from: a resumed run must start at exactly the batch where it stopped, and
    Lightning offers no public way to replace how its loop restarts.
    """

    def restart_nothing(self) -> None:
        """Forget that a checkpoint was loaded. The public setter `restarting` of this loop keeps True whenever
        `max_steps` is set, so the field itself is set.
        """
        self._restarting = self.epoch_loop.restarting = False

    def count_logged_steps(self, steps: int) -> None:
        """The step that the loggers get: Lightning counts it beside `global_step`."""
        self.epoch_loop._batches_that_stepped = steps

    def end_batch(self) -> None:
        """Do what follows a training batch, without a batch: a validation if it is time for one."""
        assert self._data_fetcher is not None
        self.epoch_loop.on_advance_end(self._data_fetcher)


def after_batch(trainer: L.Trainer, function: Callable[[L.Trainer], None]) -> None:
    """Call `function` after every training batch, when its metrics are logged and nothing else has begun: before a
    validation, and before the wait for the next batch, which a broken loader may make long. Lightning has no hook for
    that moment. The function that was added last is called first.
    """
    loop = cast(Any, trainer.fit_loop.epoch_loop)
    go_on = loop.on_advance_end

    def on_advance_end(*arguments: Any) -> None:
        function(trainer)
        go_on(*arguments)

    loop.on_advance_end = on_advance_end


def ignore_signals(trainer: L.Trainer) -> None:
    """Switch Lightning's own signal handlers off. They start collectives in the middle of others, and every step
    synchronises the host to ask for them. Lightning has no setting for either.
    """
    cast(Any, trainer)._signal_connector.register_signal_handlers = lambda: None
    cast(Any, trainer.fit_loop.epoch_loop)._broadcast_sigterm_tensor = lambda: None


def shard_over_all_ranks(strategy: ModelParallelStrategy) -> None:
    """Make one group of all ranks of all nodes. The constructor takes that number, but it is only known once Lightning
    has counted the devices.
    """
    strategy._data_parallel_size = strategy.num_nodes * strategy.num_processes
    strategy._tensor_parallel_size = 1


def tensors_without_memory() -> Any:
    """torch's mode of tensors that have a shape and a type but no memory: `tubelet bench scale` counts with them. The
    public `torch.device("meta")` lacks the device, and so counts other kernels.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)
