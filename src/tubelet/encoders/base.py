"""The one contract of every encoder: (clip, mask | None) -> tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tubelet.clip import ClipGrid
from tubelet.layers.stack import Stack
from tubelet.masking import Mask
from tubelet.nodes import Described


class EncoderOutput(NamedTuple):
    """tokens [B,prefix+V,D]; hidden_states: the input of the first block, then the output of each block; attentions:
    the attention probabilities of each block. None if not asked for.
    """

    tokens: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


def sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of a frame in pixels; `size` is one number if the frame is square."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def drop_path_rates(last: float, depth: int) -> list[float]:
    """The drop path rate of each block, rising linearly from 0 at the first to `last` at the last. Raises ValueError if
    `last` is no probability below 1.
    """
    if not 0.0 <= last < 1.0:
        raise ValueError(f"drop_path must lie in [0, 1), got {last}")
    return [last * i / max(depth - 1, 1) for i in range(depth)]


class Encoder(Stack, Described):
    """The contract between an encoder and everything that uses it. A subclass sets these attributes and defines the two
    methods below.

    grid                the size of the clip it takes, and its tokens
    dim                 width of a token
    in_channels         channels of a clip
    norm                the last LayerNorm; nn.Identity() where there is none
    num_prefix_tokens   number of class tokens, which come first and are always visible
    needs_rectangle     whether it accepts only masks with the same visible positions in every time step
    uniform_states      whether all hidden states are [B,prefix+V,D]
    task_parts          its parts that belong to one task: another task may drop them, or start them from random values

    `layers()` lists its layers from input to output: the embedding, every block, the norm.

    `forward(clip [B,C,T,H,W], mask=None, return_hidden_states=False, return_attentions=False)` returns tokens
    [B,prefix+V,D] (V = N without a mask), or an EncoderOutput if one of the flags is set.
    """

    grid: ClipGrid
    dim: int
    in_channels: int
    norm: nn.Module
    num_prefix_tokens: int = 0
    needs_rectangle: bool = False
    uniform_states: bool = True
    task_parts: tuple[str, ...] = ("norm",)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in ("forward", "layers"):
            if getattr(cls, name) is getattr(Encoder, name):
                raise TypeError(f"{cls.__qualname__} must define {name}(): see tubelet.encoders.base.Encoder")

    def forward(
        self,
        clip: Tensor,
        mask: Mask | None = None,
        return_hidden_states: bool = False,
        return_attentions: bool = False,
    ) -> Tensor | EncoderOutput:
        raise NotImplementedError

    def check_contract(self) -> None:
        """Raises ValueError naming what an encoder lacks. Every model calls this before training."""
        name = type(self).__qualname__
        missing = [each for each in ("grid", "dim", "in_channels", "norm") if not hasattr(self, each)]
        if missing:
            raise ValueError(f"{name} must set {', '.join(missing)}: see tubelet.encoders.base.Encoder")
        layers = list(self.layers())
        if len(layers) < 3 or not all(isinstance(layer, nn.Module) for layer in layers):
            raise ValueError(
                f"{name}.layers() must list modules: the embedding, every block, the last norm; it lists {len(layers)}"
            )
        # a block outside the encoder would be compiled and sharded, but its weights would not be saved
        own = {id(part) for part in self.modules()}
        if any(id(block) not in own for block in layers[1:-1]):
            raise ValueError(f"{name}.layers() lists a block that is not a part of the encoder")

    def check_masking(self, masking: Callable[..., Tensor]) -> None:
        """Raises ValueError if this encoder cannot take the masks of `masking`.

        masking: `(grid, *, generator) -> bool [N]`; several masks are drawn and checked, as kinds may differ.
        """
        if self.needs_rectangle:
            for seed in range(16):
                hidden = masking(self.grid, generator=torch.Generator().manual_seed(seed))
                self.check_rectangle(Mask.from_hidden(hidden[None]))

    def check_rectangle(self, mask: Mask | None) -> None:
        """Raises ValueError unless the visible positions are the same in every time step.

        In a compiled graph and on a GPU only the count is checked: comparing values would make the host wait.
        """
        if mask is None:
            return
        visible, (t, places) = mask.visible, (self.grid.t, self.grid.h * self.grid.w)
        lines_up = visible.shape[1] % t == 0
        if lines_up and visible.device.type == "cpu" and not torch.compiler.is_compiling():
            steps = visible.unflatten(1, (t, -1))  # [B,t,S]
            # tokens are numbered (t h w), so the same position in the next time step has a number larger by h*w
            lines_up = bool((steps == steps[:, :1] % places + places * torch.arange(t)[None, :, None]).all())
        if not lines_up:
            raise ValueError(
                f"{type(self).__name__} attends over space and time in turn, so the same positions must be visible in "
                f"each of the {t} time steps (tube or multiblock masking); this mask leaves {visible.shape[1]} visible "
                f"tokens that are no such rectangle"
            )

    def run_blocks(
        self, blocks: Iterable[nn.Module], x: Tensor, return_hidden_states: bool, return_attentions: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
        """Run blocks `(x, return_attention) -> (x, weights)` in order. Returns x, the hidden states and the attentions,
        the last two only where asked for.
        """
        states: list[Tensor] = [x]
        attentions: list[Tensor] = []
        for block in blocks:
            x, weights = block(x, return_attentions)
            if return_hidden_states:
                states.append(x)
            if return_attentions:
                attentions.append(weights)
        return x, tuple(states) if return_hidden_states else None, tuple(attentions) if return_attentions else None
