"""Resizing and flips on uint8 frames in the worker, normalising on the device.

Frames arrive from the reader as uint8 [T,H,W,C], which torch's antialiased resize reads in place (it is the memory
format `channels_last` of [T,C,H,W]), and leave as a clip [C,T,H,W] in the same order of memory. Every clip gets one
crop and one flip: all its frames alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tubelet.data.crops import Box
from tubelet.data.sampling import Kind, Pad, Sampling

Interpolation = Literal["bilinear", "bicubic"]


def resize_box(frames: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """uint8 [T,H,W,C] -> the box, resized (bilinear, antialiased) to `size`: uint8 [T,h,w,C]."""
    part = frames[:, box.top : box.top + box.height, box.left : box.left + box.width]
    return _resize(part, size)


def resize_centre(frames: Tensor, size: tuple[int, int], short_side: int | None = None) -> Tensor:
    """`resize_views` with one view: the centre."""
    return resize_views(frames, size, short_side, 1)[0]


def resize_views(
    frames: Tensor,
    size: tuple[int, int],
    short_side: int | None,
    crops: int,
    exact: tuple[int, int] | None = None,
    interpolation: Interpolation = "bilinear",
) -> list[Tensor]:
    """For evaluation, as Hugging Face's processors do it: the short side to `short_side` (None: just enough to fill the
    crop), then `crops` crops at equal distances from one end of the long side to the other; a single one is the centre.
    `exact` instead resizes to this height and width, whatever the aspect. uint8 [T,H,W,C] -> views of uint8 [T,h,w,C].
    Raises ValueError if a crop does not fit.
    """
    height, width = frames.shape[1:3]
    if exact is not None:
        resized = exact
    elif short_side is None:
        ratio = max(size[0] / height, size[1] / width)
        resized = (max(size[0], int(height * ratio)), max(size[1], int(width * ratio)))
    elif height <= width:
        resized = (short_side, int(short_side * width / height))
    else:
        resized = (int(short_side * height / width), short_side)
    down, right = resized[0] - size[0], resized[1] - size[1]  # the margins
    if down < 0 or right < 0:
        raise ValueError(f"a crop of {size[0]}x{size[1]} does not fit in frames resized to {resized[0]}x{resized[1]}")
    frames = _resize(frames, resized, interpolation)
    places = [(down // 2, right // 2)]
    if crops > 1:
        shares = [view / (crops - 1) for view in range(crops)]
        tall = resized[0] > resized[1]
        places = [(int(down * s), right // 2) if tall else (down // 2, int(right * s)) for s in shares]
    return [frames[:, top : top + size[0], left : left + size[1]] for top, left in places]


def view_shrinker(size: tuple[int, int], short_side: int | None, crops: int, *how: Any) -> Callable[[Tensor], Tensor]:
    """For `read_clip`: `resize_views` of each frame as it is decoded, uint8 [T,H,W,C] -> [T,crops,h,w,C]. The arguments
    are those of `resize_views`.
    """
    return lambda frames: torch.stack(resize_views(frames, size, short_side, crops, *how), dim=1)


def flip(frames: Tensor) -> Tensor:
    """Mirror left and right: [T,H,W,C] -> [T,H,W,C]."""
    return frames.flip(2)


def _resize(frames: Tensor, size: tuple[int, int], interpolation: Interpolation = "bilinear") -> Tensor:
    if frames.dtype != torch.uint8:
        raise ValueError(f"frames must be uint8, got {frames.dtype}")
    if tuple(frames.shape[1:3]) == size:
        return frames
    images = frames.permute(0, 3, 1, 2)  # [T,H,W,C] -> [T,C,H,W], a view
    images = F.interpolate(images, size, mode=interpolation, antialias=True, align_corners=False)
    return images.permute(0, 2, 3, 1)  # [T,h,w,C]


@dataclass(frozen=True)
class Preprocess:
    """How a model wants its pixels; it belongs to the model and is saved with the weights.

    short_side  evaluation resizes the short side to this many pixels before it crops; None: to the crop's size
    size        (height, width): evaluation resizes frames to exactly this before it crops, whatever their aspect
    interpolation  of that resizing; training is always bilinear
    mean, std   one number a channel
    scale       of uint8 values, and `offset`, taken off after scaling: (x * scale - offset - mean) / std
    sampling, stride, fps, pad    how clips are taken from videos, as the weights saw them in training: `Sampling`
    """

    short_side: int | None = None
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)
    scale: float = 1 / 255
    offset: float = 0.0
    sampling: Kind = "dense"
    stride: int = 4
    fps: float | None = None
    pad: Pad = "clamp"
    size: Sequence[int] | None = None
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        # configs and JSON files give lists
        object.__setattr__(self, "mean", tuple(float(m) for m in self.mean))
        object.__setattr__(self, "std", tuple(float(s) for s in self.std))
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"mean has {len(self.mean)} numbers and std {len(self.std)}: one each a channel")
        if min(self.std) <= 0 or self.scale <= 0:
            raise ValueError(f"std and scale must be positive, got {list(self.std)} and {self.scale}")
        if self.short_side is not None and self.short_side < 1:
            raise ValueError(f"short_side must be at least 1, got {self.short_side}")
        if self.size is not None:
            object.__setattr__(self, "size", tuple(self.size))
            if len(self.size) != 2 or min(self.size) < 1:
                raise ValueError(f"size must be [height, width] in pixels, got {list(self.size)}")
            if self.short_side is not None:
                raise ValueError(f"size {list(self.size)} and short_side {self.short_side} cannot both be set")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation must be bilinear or bicubic, got '{self.interpolation}'")
        self.frames()

    def shrinker(self, crop: tuple[int, int], crops: int = 1) -> Callable[[Tensor], Tensor]:
        """What evaluation does to each frame as it is decoded: uint8 [T,H,W,C] -> [T,crops,h,w,C], `crop` = (h, w)."""
        return view_shrinker(crop, self.short_side, crops, self.size, self.interpolation)

    def frames(self, stride: int | None = None) -> Sampling:
        """Which frames of a video make a clip; `stride`: dense clips with this one instead."""
        if stride is not None:
            return Sampling("dense", stride, pad=self.pad)
        return Sampling(self.sampling, self.stride, self.fps, self.pad)

    def normalise(self, clip: Tensor) -> Tensor:
        """uint8 [B,C,T,H,W] -> float32, on the clip's device."""
        if clip.dtype != torch.uint8:
            raise ValueError(f"normalise takes uint8 clips, got {clip.dtype}: has it been normalised already?")
        return self.normalise_pixels(clip.contiguous().float())  # the loader's clips lie as [B,T,H,W,C] in memory

    def normalise_pixels(self, pixels: Tensor) -> Tensor:
        """float [B,C,T,H,W] in [0, 255], as uint8 clips have -> what `normalise` makes of them."""
        mean, std = self._per_channel(pixels, channel_dim=1)
        return (pixels * self.scale - (self.offset + mean)) / std

    def denormalise(self, pixels: Tensor, channel_dim: int = 1) -> Tensor:
        """Normalised pixels of any shape -> the same in [0, 1]: undoes `normalise` but for the division by 255."""
        mean, std = self._per_channel(pixels, channel_dim)
        return (pixels * std + (self.offset + mean)) * (1 / (255 * self.scale))

    def renormalise(self, clip: Tensor, old: Preprocess) -> Tensor:
        """A clip [B,C,T,H,W] that `old` has normalised -> as `self` would have done it."""

        def arithmetic(preprocess: Preprocess) -> tuple[object, ...]:
            return preprocess.mean, preprocess.std, preprocess.scale, preprocess.offset

        if arithmetic(self) == arithmetic(old):
            return clip
        pixels = old.denormalise(clip)
        mean, std = self._per_channel(pixels, channel_dim=1)
        return (pixels * (255 * self.scale) - (self.offset + mean)) / std

    def contrast(self, pixels: Tensor, channel_dim: int = 1) -> Tensor:
        """The factor by which `denormalise` scales the differences of pixels, to be broadcast against `pixels`."""
        return self._per_channel(pixels, channel_dim)[1] / (255 * self.scale)

    def _per_channel(self, pixels: Tensor, channel_dim: int) -> tuple[Tensor, Tensor]:
        """mean and std, to be broadcast against `pixels`."""
        if pixels.shape[channel_dim] != len(self.mean):
            raise ValueError(f"expected {len(self.mean)} channels in dimension {channel_dim} of {list(pixels.shape)}")
        shape = [1] * pixels.ndim
        shape[channel_dim] = -1
        # filled in on the device: numbers copied from the host's memory would make it wait for the device in every step
        mean, std = (torch.stack([pixels.new_full((), x) for x in numbers]) for numbers in (self.mean, self.std))
        return mean.view(shape), std.view(shape)
