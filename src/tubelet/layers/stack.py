"""What encoder, decoder and attentive pool have in common: blocks in a row, and what comes before and after them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn


class Stack(nn.Module):
    """A module that says which parts it is made of, so that nobody has to guess from names.

    `layers()` lists them from input to output: what comes before the blocks, each block, what comes after. Layer decay,
    activation checkpointing, compiling and sharding go by this list. A block is any module.
    """

    def layers(self) -> Sequence[nn.Module]:
        raise NotImplementedError

    def undecayed(self) -> Iterable[nn.Parameter]:
        """Parameters without weight decay, besides vectors: tokens and position tables, which a stack holds itself."""
        return self.parameters(recurse=False)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Every block of every stack in a model: of encoder, decoder and pools."""
    return [block for part in model.modules() if isinstance(part, Stack) for block in list(part.layers())[1:-1]]
