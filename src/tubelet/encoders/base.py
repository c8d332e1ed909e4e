"""The one contract of every encoder: (clip, mask | None) -> tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tubelet.clip import ClipGrid
from tubelet.layers.stack import Stack
from tubelet.masking import Mask


class EncoderOutput(NamedTuple):
    """tokens [B,prefix+V,D]; hidden states: the first block's input, then each block's output; attentions."""

    tokens: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


def sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of a frame in pixels, from one number if it is square."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Linear from 0 at the first block to `last` at the last."""
    return [last * i / max(depth - 1, 1) for i in range(depth)]


class Encoder(Stack):
    """What models and methods may ask of an encoder. A subclass sets the attributes and defines the two methods below.

    grid                the clip it takes, and its tokens
    dim                 width of a token
    in_channels         channels of a clip
    norm                the last LayerNorm; nn.Identity() where there is none
    num_prefix_tokens   class tokens, which come first and stay visible
    needs_rectangle     it accepts only masks with the same visible positions in every time step
    uniform_states      all hidden states are [B,prefix+V,D]
    task_parts          its own parts that belong to a task: another task may drop them, or start them fresh

    `layers()` lists its parts from input to output: embedding, block by block, norm.

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
        """Raises ValueError naming what an encoder lacks: every model calls this, long before it is fine-tuned."""
        name = type(self).__qualname__
        missing = [each for each in ("grid", "dim", "in_channels", "norm") if not hasattr(self, each)]
        if missing:
            raise ValueError(f"{name} must set {', '.join(missing)}: see tubelet.encoders.base.Encoder")
        layers = list(self.layers())
        if len(layers) < 3 or not all(isinstance(layer, nn.Module) for layer in layers):
            raise ValueError(
                f"{name}.layers() must list modules: the embedding, every block, the last norm; it lists {len(layers)}"
            )
        own = {id(part) for part in self.modules()}
        if any(id(block) not in own for block in layers[1:-1]):
            raise ValueError(f"{name}.layers() lists a block that is not a part of the encoder")

    def check_masking(self, masking: Callable[..., Tensor]) -> None:
        """Raises ValueError if this encoder cannot be pretrained with such masks.

        masking: `(grid, *, generator) -> bool [N]`; one of its masks is looked at.
        """
        if self.needs_rectangle:
            hidden = masking(self.grid, generator=torch.Generator().manual_seed(0))
            self.check_rectangle(Mask.from_hidden(hidden[None]))

    def check_rectangle(self, mask: Mask | None) -> None:
        """Raises ValueError unless the visible positions are the same in every time step.

        Compiled, or on a device that would have to be waited for, only the count is checked.
        """
        if mask is None:
            return
        visible, (t, places) = mask.visible, (self.grid.t, self.grid.h * self.grid.w)
        lines_up = visible.shape[1] % t == 0
        if lines_up and visible.device.type == "cpu" and not torch.compiler.is_compiling():
            steps = visible.unflatten(1, (t, -1))  # [B,t,S]
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
        """Run blocks `(x, return_attention) -> (x, weights)` in order, keeping what is asked for."""
        states: list[Tensor] = [x]
        attentions: list[Tensor] = []
        for block in blocks:
            x, weights = block(x, return_attentions)
            if return_hidden_states:
                states.append(x)
            if return_attentions:
                attentions.append(weights)
        return x, tuple(states) if return_hidden_states else None, tuple(attentions) if return_attentions else None
