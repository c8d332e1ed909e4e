"""Every private name of Lightning and torch that tubelet uses. No other file uses one.

A private name may disappear in any release. tests/runtime/test_lightning_internals.py says which one is gone, and finds
private names in other files. Public names of Lightning's private loops are here, too, because they are no safer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = [
    "TorchDispatchMode",
    "tree_leaves",
]  # the public names of private modules: `tubelet bench` watches operations


class LightningFitLoop(_FitLoop):
    """Lightning's loop over epochs, as a base class. A resumed run must start at exactly the batch where it stopped,
    and Lightning has no public way to change how its loop restarts.
    """

    def restart_nothing(self) -> None:
        """Forget that a checkpoint was loaded. The public setter `restarting` of this loop does not accept False if
        `max_steps` is set, so we set the field itself.
        """
        self._restarting = self.epoch_loop.restarting = False

    def count_logged_steps(self, steps: int) -> None:
        """Set the step that the loggers get. Lightning counts it separately from `global_step`."""
        self.epoch_loop._batches_that_stepped = steps

    def end_batch(self) -> None:
        """Run what follows a training batch, without a batch: for example a validation, if one is due."""
        assert self._data_fetcher is not None
        self.epoch_loop.on_advance_end(self._data_fetcher)


def after_batch(trainer: L.Trainer, function: Callable[[L.Trainer], None]) -> None:
    """Call `function` after every training batch, when its metrics are logged, but before a validation and before the
    wait for the next batch (which a broken loader may make long). Lightning has no hook for this moment. The function
    that was added last is called first.
    """
    loop = cast(Any, trainer.fit_loop.epoch_loop)
    go_on = loop.on_advance_end

    def on_advance_end(*arguments: Any) -> None:
        function(trainer)
        go_on(*arguments)

    loop.on_advance_end = on_advance_end


def ignore_signals(trainer: L.Trainer) -> None:
    """Switch off Lightning's own signal handlers. They start collectives in the middle of others, and Lightning
    synchronises the host in every step to ask for a signal. It has no setting for either.
    """
    cast(Any, trainer)._signal_connector.register_signal_handlers = lambda: None
    cast(Any, trainer.fit_loop.epoch_loop)._broadcast_sigterm_tensor = lambda: None


def shard_over_all_ranks(strategy: ModelParallelStrategy) -> None:
    """Make one group of all ranks of all nodes. The constructor takes their number, but it is known only after
    Lightning has counted the devices.
    """
    strategy._data_parallel_size = strategy.num_nodes * strategy.num_processes
    strategy._tensor_parallel_size = 1


def tensors_without_memory() -> Any:
    """torch's mode in which tensors have a shape and a type but no memory. `tubelet bench scale` counts with them. The
    public `torch.device("meta")` would count other kernels, because its tensors do not know their real device.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)


def cpu_attention_counts() -> dict[Any, Callable[..., int]]:
    """For `FlopCounterMode(custom_mapping=...)`: the operations of the CPU's attention kernels, which torch counts for
    the kernels of GPUs alone in some of its versions.
    """
    from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

    aten: Any = torch.ops.aten
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
        ),
    }


def watch_calls(see: Callable[[Any, tuple[Any, ...], dict[str, Any]], None]) -> Any:
    """A context in which `see` gets every kernel that torch runs, forward and backward, with its arguments."""

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            see(func, args, kwargs or {})
            return func(*args, **kwargs or {})

    return Watch()
