"""The contract of every decoder: (tokens of the visible tubelets, mask) -> a prediction for each hidden tubelet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from tubelet.layers.stack import Stack
from tubelet.masking import Mask
from tubelet.nodes import Described


class Decoder(Stack, Described):
    """Built as `decoder(encoder, target_dim)`. The model passes these two, so a config sets `_partial_: true`.

    `layers()` lists its layers from input to output: one before the blocks, the blocks, one after them (see `Stack`).
    """

    passed = 2  # see Described

    share: float = 1.0
    """The share of the hidden tokens that it predicts in training, in (0, 1]: those that `choose` keeps."""

    reads_states: bool = False
    """Whether `forward` needs the encoder's hidden states too: the first block's input, then each block's output."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in ("forward", "layers"):
            if getattr(cls, name) is getattr(Decoder, name):
                raise TypeError(f"{cls.__qualname__} must define {name}(): see tubelet.decoders.base.Decoder")

    def choose(self, mask: Mask) -> Mask:
        """The mask whose `hidden` tokens are predicted. A subclass may keep fewer of them; by default all are kept."""
        return mask

    def check_masking(self, masking: Callable[..., Tensor]) -> None:
        """Raises ValueError if it cannot predict under such masks. masking: `(grid, *, generator) -> bool [N]`."""

    def forward(self, tokens: Tensor, mask: Mask, states: Sequence[Tensor] = ()) -> Tensor:
        """The encoder's tokens [B,prefix+V,D] -> predictions [B,M,P] for `mask.hidden`. `states` goes to decoders that
        read them.
        """
        raise NotImplementedError
