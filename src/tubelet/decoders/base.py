"""The one contract of every decoder: (tokens of the visible tubelets, mask) -> a prediction for each hidden one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from tubelet.layers.stack import Stack
from tubelet.masking import Mask


class Decoder(Stack):
    """Built as `decoder(encoder, target_dim)`: a config leaves these two to the model (`_partial_: true`).

    `layers()` lists its parts from input to output, its blocks between the first and the last: see `Stack`.
    """

    share: float = 1.0
    """Of the hidden tokens, those it predicts in training: what `choose` leaves of a mask."""

    reads_states: bool = False
    """Whether `forward` needs the encoder's hidden states too: the first block's input, then each block's output."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in ("forward", "layers"):
            if getattr(cls, name) is getattr(Decoder, name):
                raise TypeError(f"{cls.__qualname__} must define {name}(): see tubelet.decoders.base.Decoder")

    def choose(self, mask: Mask) -> Mask:
        """The mask whose `hidden` tokens are predicted; all of them, unless a subclass says otherwise."""
        return mask

    def check_masking(self, masking: Callable[..., Tensor]) -> None:
        """Raises ValueError if it cannot predict under such masks. masking: `(grid, *, generator) -> bool [N]`."""

    def forward(self, tokens: Tensor, mask: Mask, states: Sequence[Tensor] = ()) -> Tensor:
        """The encoder's tokens [B,prefix+V,D] -> predictions [B,M,P] for `mask.hidden`. `states` goes to decoders that
        read them.
        """
        raise NotImplementedError
