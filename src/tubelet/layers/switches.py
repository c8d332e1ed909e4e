"""Two settings of a block of any class that do not change results: activation checkpointing and compiling."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def switch(block: nn.Module, checkpoint_activations: bool, compiled: bool) -> None:
    """Set both settings of a block. They apply in training only.

    checkpoint_activations: keep only the input of the block, and compute the rest again in the backward pass, with the
        same random numbers.
    compiled: compile the `forward` of the block's class with torch.compile, once for all blocks of the same sizes.
    """

    def forward(self: nn.Module, *arguments: Any, **keywords: Any) -> Any:
        # We compile the function of the class, not the module. So names in checkpoints do not change, and FSDP2's hooks
        # run outside the graph.
        run = type(self).forward
        if not self.training:
            return run(self, *arguments, **keywords)
        if compiled:
            run = _compiled(run)
        if checkpoint_activations:
            return checkpoint(run, self, *arguments, use_reentrant=False, **keywords)
        return run(self, *arguments, **keywords)

    if checkpoint_activations or compiled:
        block.forward = MethodType(forward, block)  # bound, so that deepcopy binds the copy's method to the copy
    else:
        vars(block).pop("forward", None)


@contextmanager
def switched_off(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Within it, blocks run as if neither setting had been made."""
    found = [(block, vars(block).pop("forward")) for block in blocks if "forward" in vars(block)]
    try:
        yield
    finally:
        for block, forward in found:
            block.forward = forward


@cache
def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    """With static shapes: a run trains with few different ones, and they compile to faster graphs."""
    return torch.compile(forward, dynamic=False)
