"""Which rectangle of a frame training sees. Geometry alone: a crop is `(height, width, size, generator) -> Box`, the
box of the file's own pixels that is then resized to `size` (height, width) in one step, so that no pixel is touched
that the crop leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels within a frame."""

    top: int
    left: int
    height: int
    width: int


Size = tuple[int, int]
Crop = Callable[[int, int, Size, torch.Generator], Box]


@dataclass(frozen=True)
class MultiScale:
    """VideoMAE's crop for pretraining (from TSN): sides are scales, at most one step apart, of the largest box with the
    aspect of `size` that fits; the place is one of 13 fixed points: a 3x3 grid of corners, edge middles and the centre,
    and the four points midway between centre and corners.
    """

    scales: Sequence[float] = (1.0, 0.875, 0.75, 0.66)

    def __post_init__(self) -> None:
        if not self.scales or not all(0.0 < scale <= 1.0 for scale in self.scales):
            raise ValueError(f"scales must lie in (0, 1], got {list(self.scales)}")

    def __call__(self, height: int, width: int, size: Size, generator: torch.Generator) -> Box:
        largest = fit_box(height, width, size)
        pairs = [(a, b) for i, a in enumerate(self.scales) for j, b in enumerate(self.scales) if abs(i - j) <= 1]
        scale_h, scale_w = pairs[draw(len(pairs), generator)]
        box_h, box_w = max(1, int(largest.height * scale_h)), max(1, int(largest.width * scale_w))
        down, right = _PLACES[draw(len(_PLACES), generator)]
        # the places are whole quarters of the margin, as in VideoMAE
        return Box((height - box_h) // 4 * down, (width - box_w) // 4 * right, box_h, box_w)


_PLACES = [(y, x) for y in (0, 2, 4) for x in (0, 2, 4)] + [(1, 1), (1, 3), (3, 1), (3, 3)]


@dataclass(frozen=True)
class RandomResized:
    """Inception's crop, for fine-tuning: a share `scale` of the frame's area, width / height in `ratio` (drawn evenly
    in its logarithm), anywhere. `size` only matters if no such box fits: then the largest centred box of its aspect.
    """

    scale: Sequence[float] = (0.08, 1.0)
    ratio: Sequence[float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        check_range("scale", self.scale, 1.0)
        check_range("ratio", self.ratio, math.inf)

    def __call__(self, height: int, width: int, size: Size, generator: torch.Generator) -> Box:
        return random_box(height, width, self.scale, self.ratio, generator) or fit_box(height, width, size)


@dataclass(frozen=True)
class ShortSideJitter:
    """SlowFast's crop: as if the frame's short side were resized to between `low` and `high` pixels, and a window of
    `size` cut anywhere. Raises ValueError if the window is larger than `low`.
    """

    low: int = 256
    high: int = 320

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high:
            raise ValueError(f"short sides must be 1 <= low <= high, got {self.low} and {self.high}")

    def __call__(self, height: int, width: int, size: Size, generator: torch.Generator) -> Box:
        if max(size) > self.low:
            raise ValueError(f"a crop of {size[0]}x{size[1]} does not fit in a short side of {self.low}")
        short_side = self.low + draw(self.high - self.low + 1, generator)
        shrink = min(height, width) / short_side  # pixels of the file for one of the resized frame
        box_h, box_w = (max(1, min(side, round(s * shrink))) for side, s in ((height, size[0]), (width, size[1])))
        return _anywhere(height, width, box_h, box_w, generator)


def fit_box(height: int, width: int, size: Size) -> Box:
    """The largest centred box with the aspect of `size` (height, width)."""
    box_h = min(height, width * size[0] // size[1])
    box_w = min(width, height * size[1] // size[0])
    if box_h < 1 or box_w < 1:
        raise ValueError(f"a frame of {height}x{width} holds no box of aspect {size[0]}x{size[1]}")
    return Box((height - box_h) // 2, (width - box_w) // 2, box_h, box_w)


def random_box(
    height: int, width: int, scale: Sequence[float], ratio: Sequence[float], generator: torch.Generator
) -> Box | None:
    """A box of a share `scale` of the area and of width / height in `ratio`, anywhere; None if ten draws do not fit."""
    for _ in range(10):
        area = height * width * _uniform(scale[0], scale[1], generator)
        aspect = math.exp(_uniform(math.log(ratio[0]), math.log(ratio[1]), generator))
        box_h, box_w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < box_h <= height and 0 < box_w <= width:
            return _anywhere(height, width, box_h, box_w, generator)
    return None


def check_range(name: str, bounds: Sequence[float], most: float) -> None:
    """Raises ValueError unless `bounds` are two numbers, 0 < low <= high <= most."""
    if len(bounds) != 2 or not 0.0 < bounds[0] <= bounds[1] <= most:
        raise ValueError(f"{name} must be [low, high] with 0 < low <= high <= {most:g}, got {list(bounds)}")


def draw(n: int, generator: torch.Generator) -> int:
    """A whole number in [0, n)."""
    return int(torch.randint(n, (), generator=generator))


def _anywhere(height: int, width: int, box_h: int, box_w: int, generator: torch.Generator) -> Box:
    return Box(draw(height - box_h + 1, generator), draw(width - box_w + 1, generator), box_h, box_w)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))
