"""Two switches for training that change no result: activation checkpointing and compiling, for a block of any class."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def switch(block: nn.Module, checkpoint_activations: bool, compiled: bool) -> None:
    """Set both switches of a block; evaluation is never affected.

    checkpoint_activations: keep only the block's input and compute the rest again in the backward pass, with the same
        random numbers.
    compiled: torch compiles the forward of the block's class, once for all blocks of the same sizes.
    """

    def forward(self: nn.Module, *arguments: Any, **keywords: Any) -> Any:
        # the function of the class, not the module: names in checkpoints stay, and FSDP2's hooks run outside the graph
        run = type(self).forward
        if not self.training:
            return run(self, *arguments, **keywords)
        if compiled:
            run = _compiled(run)
        if checkpoint_activations:
            return checkpoint(run, self, *arguments, use_reentrant=False, **keywords)
        return run(self, *arguments, **keywords)

    if checkpoint_activations or compiled:
        block.forward = MethodType(forward, block)  # a bound method is copied with its block
    else:
        vars(block).pop("forward", None)


@cache
def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Static shapes: a run trains with few of them."""
    return torch.compile(forward, dynamic=False)
