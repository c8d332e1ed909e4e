"""The ceiling of a training step: its own matrix products and attentions, each timed alone.

A step cannot be faster than these, whatever it does in between. So `ceiling / step` says which share of a step is work
that the model asks for; the rest is casts, copies, norms, activations, the update of the weights, and waiting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from tubelet.runtime.lightning_internals import cpu_attention_counts, watch_calls

_REPEATS = 3  # of a call that is timed: the first of them warms the caches and is not counted


class Ceiling:
    """Record the calls of one real run of `passes`, forward and backward; then time each of them alone.

    Every kind of call is kept once, with the tensors of its first occurrence: so shapes, strides, types and values are
    the step's own. The kernels are those that torch's FLOP counter knows.
    """

    def __init__(self, passes: Callable[[], object], device: str) -> None:
        self.device = device
        self.calls: dict[Any, Callable[[], Any]] = {}
        self.counts: Counter[Any] = Counter()
        self.kernels = {*flop_registry, *cpu_attention_counts()}
        with watch_calls(self._record):
            passes()

    def _record(self, kernel: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if kernel.overloadpacket not in self.kernels:
            return
        signature = (kernel, *map(_describe, arguments), *((key, _describe(keywords[key])) for key in keywords))
        self.counts[signature] += 1
        self.calls.setdefault(signature, lambda: kernel(*arguments, **keywords))

    @torch.no_grad()
    def time(self) -> tuple[float, float]:
        """Seconds of all matrix products of the step and of all its attentions; convolutions count as products."""
        products = attentions = 0.0
        for signature, call in self.calls.items():
            seconds = self.counts[signature] * self._time(call)
            if "attention" in str(signature[0]):
                attentions += seconds
            else:
                products += seconds
        return products, attentions

    def _time(self, call: Callable[[], Any]) -> float:
        call()
        wait(self.device)
        start = perf_counter()
        for _ in range(_REPEATS - 1):
            call()
        wait(self.device)
        return (perf_counter() - start) / (_REPEATS - 1)


def wait(device: str) -> None:
    """Wait until the device has finished all queued work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _describe(argument: Any) -> Any:
    """What the time of a call depends on, as something that can be a key."""
    if isinstance(argument, Tensor):
        return tuple(argument.shape), argument.stride(), argument.dtype
    return tuple(map(_describe, argument)) if isinstance(argument, list | tuple) else argument
