"""Maskings: which tokens are hidden from the encoder. `True` means hidden, everywhere in this project.

A masking is a function `(grid, ratio, generator) -> bool [N]` that draws the mask of one clip. The loader's worker
calls it with the clip's own random key, so a run draws the same masks on any device and with any number of workers.
`Mask.from_hidden` turns a batch of masks into index tensors. The number of hidden tokens depends on (grid, ratio)
alone, so shapes stay static.

Sources: tube, random and frame masking: VideoMAE, https://arxiv.org/abs/2203.12602 (section 3.3); multiblock: V-JEPA,
https://arxiv.org/abs/2404.08471; running cells and dual masking: VideoMAEv2, https://arxiv.org/abs/2303.16727.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tubelet.clip import ClipGrid

MaskGenerator = Callable[..., Tensor]
"""`(grid: ClipGrid, *, generator: torch.Generator) -> bool [N]`. The ratio is already bound (a Hydra `_partial_`)."""


@dataclass(frozen=True)
class Mask:
    """Sorted token numbers, both int64. The encoder sees `visible` [B,V]; the decoder predicts `hidden` [B,M].

    V + M may be less than N: dual masking predicts only some of the hidden tokens.
    """

    visible: Tensor
    hidden: Tensor

    @classmethod
    def from_hidden(cls, hidden: Tensor) -> Mask:
        """`hidden`: bool [B,N], True = hidden from the encoder. Dual masking passes [B,2,N]; its second row is hidden
        from the decoder too. Raises ValueError if the clips hide, or predict, different numbers of tokens.
        """
        if hidden.dtype != torch.bool or not (hidden.ndim == 2 or (hidden.ndim == 3 and hidden.shape[1] == 2)):
            raise ValueError(f"a mask must be bool [B,N] or [B,2,N], got {hidden.dtype} {list(hidden.shape)}")
        encoder = hidden if hidden.ndim == 2 else hidden[:, 0]
        predicted = hidden if hidden.ndim == 2 else hidden[:, 0] & ~hidden[:, 1]
        return cls(_token_numbers(~encoder, "leave visible"), _token_numbers(predicted, "predict"))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Mask:
        return Mask(
            self.visible.to(device, non_blocking=non_blocking), self.hidden.to(device, non_blocking=non_blocking)
        )

    def pin_memory(self) -> Mask:
        return Mask(self.visible.pin_memory(), self.hidden.pin_memory())


def tube(grid: ClipGrid, ratio: float, generator: torch.Generator) -> Tensor:
    """Hide `int(ratio * h*w)` positions, the same ones in every frame: VideoMAE's tube masking and rounding."""
    _check_ratio(ratio)
    positions = _choose(grid.h * grid.w, int(ratio * grid.h * grid.w), generator)  # [h*w]
    return positions.repeat(grid.t)  # [t*h*w]


def random(grid: ClipGrid, ratio: float, generator: torch.Generator) -> Tensor:
    """Hide `int(ratio * N)` tokens anywhere in space and time."""
    _check_ratio(ratio)
    return _choose(grid.N, int(ratio * grid.N), generator)


def frame(grid: ClipGrid, ratio: float, generator: torch.Generator) -> Tensor:
    """Hide `int(ratio * t)` whole time steps."""
    _check_ratio(ratio)
    return _choose(grid.t, int(ratio * grid.t), generator).repeat_interleave(grid.h * grid.w)


def multiblock(grid: ClipGrid, ratio: float, generator: torch.Generator) -> Tensor:
    """Hide `int(ratio * h*w)` positions, the same ones in every frame, in blocks of aspect 0.75 to 1.5.

    Half of the masks are short-range, with blocks of 0.15 of the frame (V-JEPA: 8 blocks). The other half are
    long-range: they start with two blocks of 0.7. A ratio below 0.7 has only short-range masks.

    Where we differ: V-JEPA runs every clip with a mask of each kind, hides what the blocks happen to cover, and cuts a
    batch to the smallest count. Here small blocks are added until the count is reached, and the last block is cut.
    So the count depends on grid and ratio alone.
    """
    _check_ratio(ratio)
    target = int(ratio * grid.h * grid.w)
    _check_count(target, grid.h * grid.w)
    hidden = torch.zeros(grid.h, grid.w, dtype=torch.bool)
    long_range = ratio >= 0.7 and bool(torch.randint(2, (), generator=generator))
    scales = [0.7, 0.7] if long_range else []
    while (missing := target - int(hidden.sum())) > 0:
        # `missing` cuts the last block, so that the count is exact
        block = _block(grid, scales.pop() if scales else 0.15, generator) & ~hidden
        new = block.flatten().nonzero().flatten()[:missing]
        hidden.view(-1)[new] = True
    return hidden.flatten().repeat(grid.t)  # [t*h*w]


def running_cell(grid: ClipGrid, ratio: float, generator: torch.Generator) -> Tensor:
    """Hide `int(4 * ratio)` patches of every 2x2 cell: neighbours in reading order, shifted by one per time step.

    This mask is for the decoder: over four steps every position is hidden equally often. Raises ValueError if the cells
    do not tile the frame.
    """
    count = int(4 * ratio)
    if not 0 < count < 4:
        raise ValueError(f"running cells hide 1, 2 or 3 of 4 patches, a ratio of {ratio} hides {count}")
    if grid.h % 2 or grid.w % 2:
        raise ValueError(f"cells of 2x2 do not tile a frame of {grid.h}x{grid.w} patches")
    phase = int(torch.randint(4, (), generator=generator))
    step, row, column = torch.meshgrid(*map(torch.arange, (grid.t, grid.h, grid.w)), indexing="ij")
    place = row % 2 * 2 + column % 2  # 0 to 3: the place within the cell, in reading order
    return ((place + step + phase) % 4 < count).flatten()


def dual(grid: ClipGrid, ratio: float, generator: torch.Generator, decoder_ratio: float = 0.5) -> Tensor:
    """VideoMAEv2's dual masking, bool [2,N]: a tube mask for the encoder, and running cells for the decoder. The
    decoder predicts the tokens that the first hides and the second does not. Raises ValueError unless the number of
    time steps is a multiple of four: otherwise the number of tokens to predict would differ from clip to clip.
    """
    if grid.t % 4:
        raise ValueError(f"dual masking needs a multiple of 4 time steps, this clip has {grid.t}")
    return torch.stack([tube(grid, ratio, generator), running_cell(grid, decoder_ratio, generator)])


def generators() -> dict[str, MaskGenerator]:
    """Every masking of this file, by name."""
    public = {name: f for name, f in globals().items() if inspect.isfunction(f) and not name.startswith("_")}
    return {name: f for name, f in public.items() if next(iter(inspect.signature(f).parameters), "") == "grid"}


def _block(grid: ClipGrid, scale: float, generator: torch.Generator) -> Tensor:
    """bool [h,w], True in a rectangle of about `scale` of the frame's area, at a random place where it fits."""
    aspect = 0.75 + 0.75 * float(torch.rand((), generator=generator))
    height = min(max(round((scale * grid.h * grid.w * aspect) ** 0.5), 1), grid.h)
    width = min(max(round((scale * grid.h * grid.w / aspect) ** 0.5), 1), grid.w)
    top = int(torch.randint(grid.h - height + 1, (), generator=generator))
    left = int(torch.randint(grid.w - width + 1, (), generator=generator))
    block = torch.zeros(grid.h, grid.w, dtype=torch.bool)
    block[top : top + height, left : left + width] = True
    return block


def _token_numbers(chosen: Tensor, what: str) -> Tensor:
    """bool [B,N] -> int64 [B,K], the numbers of the True tokens in ascending order. `what` completes the error."""
    counts = chosen.sum(dim=1)
    low, high = int(counts.min()), int(counts.max())
    if low != high:
        raise ValueError(f"clips of one batch must {what} equally many tokens, got between {low} and {high}")
    if not 0 < low < chosen.shape[1]:
        raise ValueError(f"a mask must {what} some tokens but not all, got {low} of {chosen.shape[1]}")
    # a stable argsort of the flags lists the chosen tokens last, in ascending order
    order = chosen.to(torch.int8).argsort(dim=1, stable=True)
    return order[:, chosen.shape[1] - low :].contiguous()


def _choose(total: int, hidden: int, generator: torch.Generator) -> Tensor:
    """bool [total] with exactly `hidden` True, every subset equally likely."""
    _check_count(hidden, total)
    flags = torch.zeros(total, dtype=torch.bool)
    flags[torch.randperm(total, generator=generator)[:hidden]] = True
    return flags


def _check_count(hidden: int, total: int) -> None:
    if not 0 < hidden < total:
        raise ValueError(f"this ratio hides {hidden} of {total}: it must hide at least 1 and leave at least 1 visible")


def _check_ratio(ratio: float) -> None:
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"masking ratio must lie in (0, 1), got {ratio}")
