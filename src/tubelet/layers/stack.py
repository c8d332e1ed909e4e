"""The base class of encoder, decoder and attentive pool: a row of blocks, with layers before and after them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn


class Stack(nn.Module):
    """A module that lists its own layers, so that no other code has to guess them from names.

    `layers()` lists them from input to output: what stands before the blocks, each block, what stands after them. Layer
    decay, activation checkpointing, compiling and sharding use this list. A block may be any module.
    """

    def layers(self) -> Sequence[nn.Module]:
        raise NotImplementedError

    def undecayed(self) -> Iterable[nn.Parameter]:
        """Parameters without weight decay, in addition to all vectors. By default those that the stack holds itself and
        not in a submodule: tokens and position tables.
        """
        return self.parameters(recurse=False)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Every block of every stack in a model: encoder, decoder and pools."""
    return [block for part in model.modules() if isinstance(part, Stack) for block in list(part.layers())[1:-1]]
