"""Maskings: which tokens are hidden from the encoder. `True` means hidden, everywhere in this project.

A masking is a function `(grid, ratio, generator) -> bool [N]` that draws the mask of one clip. The loader's worker
calls it with the clip's own random key, so a run draws the same masks on any device and with any number of workers.
`Mask.from_hidden` turns a batch of masks into index tensors. The number of hidden tokens depends on (grid, ratio)
alone, so shapes stay static. With `schedule` the ratio changes from epoch to epoch (`scheduled`).

Sources: tube, random and frame masking: VideoMAE, https://arxiv.org/abs/2203.12602 (section 3.3); multiblock: V-JEPA,
https://arxiv.org/abs/2404.08471; running cells and dual masking: VideoMAEv2, https://arxiv.org/abs/2303.16727.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

import torch
from torch import Tensor

from tubelet.clip import ClipGrid

MaskGenerator = Callable[..., Tensor]
"""`(grid: ClipGrid, *, generator: torch.Generator) -> bool [N]`. The ratio is already bound (a Hydra `_partial_`)."""

_SHAPES = {"linear": lambda x: x, "cosine": lambda x: (1 - math.cos(math.pi * x)) / 2}


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


def scheduled(function: MaskGenerator) -> MaskGenerator:
    """A masking that also takes `schedule`, which then decides the ratio: `{from: 0.5, to: 0.9, kind: linear}`.

    The ratio goes from `from` in the first epoch to `to` in epoch `epochs` (default: those of the run), linearly or by
    a half cosine, in `levels` equal steps (default: 5): every number of tokens is another shape, for which blocks are
    compiled. All clips of a step belong to one epoch, so their shapes agree. Where no epoch is passed, for example
    in validation, the ratio is `to`. Raises ValueError for a schedule that cannot be.
    """

    @functools.wraps(function)
    def masking(
        *arguments: Any, schedule: Mapping[str, Any] | None = None, epoch: int | None = None, **named: Any
    ) -> Tensor:
        if schedule is not None:
            named["ratio"] = ratio_at(schedule, epoch)
        return function(*arguments, **named)  # type: ignore[no-any-return]

    added = {"schedule": "Mapping[str, Any] | None", "epoch": "int | None"}  # to what `wraps` has copied
    masking.__annotations__ = {**function.__annotations__, **added}
    masking.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            *inspect.signature(function).parameters.values(),
            *(Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind) for name, kind in added.items()),
        ],
        return_annotation="Tensor",
    )
    return masking


def ratio_at(schedule: Mapping[str, Any], epoch: int | None) -> float:
    """The ratio of a schedule in an epoch, counted from 0; None: the last one."""
    known = {"from", "to", "kind", "epochs", "levels"}
    if not {"from", "to"} <= schedule.keys() <= known:
        raise ValueError(f"masking.schedule has the keys from, to, kind, epochs and levels, got {', '.join(schedule)}")
    first, last, kind = float(schedule["from"]), float(schedule["to"]), schedule.get("kind", "linear")
    levels, epochs = schedule.get("levels", 5), schedule.get("epochs")
    _check_ratio(first)
    _check_ratio(last)
    if kind not in _SHAPES:
        raise ValueError(f"masking.schedule.kind must be one of {', '.join(_SHAPES)}, got {kind}")
    if levels < 2:
        raise ValueError(f"masking.schedule.levels must be at least 2, got {levels}")
    if epoch is None:
        return last
    if epochs is None or epochs < 1:
        raise ValueError(f"masking.schedule.epochs must be at least 1, got {epochs}")
    passed = min(epoch / max(epochs - 1, 1), 1.0)
    return first + (last - first) * round(_SHAPES[kind](passed) * (levels - 1)) / (levels - 1)


def with_length(node: dict[str, Any], trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The node of a masking whose schedule, if it has one, knows how many epochs it has: those of the run. Raises
    ValueError if the run does not know them either.
    """
    schedule = node.get("schedule")
    if not schedule or "epochs" in schedule:
        return node
    if trainer["max_steps"] > 0:
        raise ValueError("masking.schedule needs a number of epochs (masking.schedule.epochs) with trainer.max_steps")
    return {**node, "schedule": {**schedule, "epochs": trainer["max_epochs"]}}


def at_epoch(masking: MaskGenerator, epoch: int) -> MaskGenerator:
    """The masking of one epoch: itself, unless it has a schedule."""
    has = isinstance(masking, functools.partial) and masking.keywords.get("schedule") is not None
    return functools.partial(masking, epoch=epoch) if has else masking


@scheduled
def tube(grid: ClipGrid, ratio: float, generator: torch.Generator) -> Tensor:
    """Hide `int(ratio * h*w)` positions, the same ones in every frame: VideoMAE's tube masking and rounding."""
    _check_ratio(ratio)
    positions = _choose(grid.h * grid.w, int(ratio * grid.h * grid.w), generator)  # [h*w]
    return positions.repeat(grid.t)  # [t*h*w]


@scheduled
def random(grid: ClipGrid, ratio: float, generator: torch.Generator) -> Tensor:
    """Hide `int(ratio * N)` tokens anywhere in space and time."""
    _check_ratio(ratio)
    return _choose(grid.N, int(ratio * grid.N), generator)


@scheduled
def frame(grid: ClipGrid, ratio: float, generator: torch.Generator) -> Tensor:
    """Hide `int(ratio * t)` whole time steps."""
    _check_ratio(ratio)
    return _choose(grid.t, int(ratio * grid.t), generator).repeat_interleave(grid.h * grid.w)


@scheduled
def causal(grid: ClipGrid, ratio: float, generator: torch.Generator) -> Tensor:
    """Hide the last `int(ratio * t)` time steps: the future, predicted from the past. Nothing is drawn."""
    _check_ratio(ratio)
    count = int(ratio * grid.t)
    _check_count(count, grid.t)
    return (torch.arange(grid.t) >= grid.t - count).repeat_interleave(grid.h * grid.w)


@scheduled
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


@scheduled
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


@scheduled
def dual(grid: ClipGrid, ratio: float, generator: torch.Generator, decoder_ratio: float = 0.5) -> Tensor:
    """VideoMAEv2's dual masking, bool [2,N]: a tube mask for the encoder, and running cells for the decoder. The
    decoder predicts the tokens that the first hides and the second does not. Raises ValueError unless the number of
    time steps is a multiple of four: otherwise the number of tokens to predict would differ from clip to clip.
    """
    if grid.t % 4:
        raise ValueError(f"dual masking needs a multiple of 4 time steps, this clip has {grid.t}")
    return torch.stack([tube(grid, ratio, generator), running_cell(grid, decoder_ratio, generator)])


@scheduled
def mixed(grid: ClipGrid, ratio: float, generator: torch.Generator, kinds: Mapping[str, float] | None = None) -> Tensor:
    """For each clip, one of several maskings of this file. `kinds`: name -> probability, up to a common factor; None:
    tube and frame alike.

    All clips must hide equally many tokens, and the roundings of the kinds differ. So every clip hides as many as the
    kind that hides most: more tokens, drawn anywhere, are hidden where a kind hides fewer. Raises ValueError for a name
    that does not exist or hides nothing by itself, or for probabilities that are negative or all zero.
    """
    chances = dict(kinds or {"tube": 1.0, "frame": 1.0})
    known = {name: f for name, f in generators().items() if name not in ("mixed", "dual")}
    if unknown := chances.keys() - known.keys():
        raise ValueError(f"masking.kinds: there is no {', '.join(sorted(unknown))} (there are: {', '.join(known)})")
    if min(chances.values()) < 0 or sum(chances.values()) <= 0:
        raise ValueError(f"masking.kinds must be probabilities, got {chances}")
    names = [name for name, chance in chances.items() if chance > 0]
    drawn = torch.tensor([chances[name] for name in names], dtype=torch.float64).multinomial(1, generator=generator)
    hidden = known[names[int(drawn)]](grid, ratio, generator)
    most = max(_count(known[name], grid, ratio) for name in names)
    left = (~hidden).nonzero().flatten()
    more = torch.randperm(len(left), generator=generator)[: most - int(hidden.sum())]
    hidden[left[more]] = True
    return hidden


def generators() -> dict[str, MaskGenerator]:
    """Every masking of this file, by name."""
    public = {name: f for name, f in globals().items() if inspect.isfunction(f) and not name.startswith("_")}
    return {name: f for name, f in public.items() if next(iter(inspect.signature(f).parameters), "") == "grid"}


@functools.cache
def _count(masking: MaskGenerator, grid: ClipGrid, ratio: float) -> int:
    """How many tokens a masking hides, which does not depend on the draw."""
    return int(masking(grid, ratio, torch.Generator().manual_seed(0)).sum())


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
