"""What training does to the frames of one view, all frames alike, on uint8 and drawn with the view's own key.

Sources: RandAugment https://arxiv.org/abs/1909.13719 in timm's variant, random erasing https://arxiv.org/abs/1708.04896,
both as VideoMAE's fine-tuning uses them. We differ in their order: VideoMAE distorts whole frames and then crops them,
we crop first, which leaves fewer pixels to distort; and an erased box holds the same noise in every frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tubelet.data.crops import Crop, MultiScale, draw, random_box
from tubelet.data.randomness import seeded
from tubelet.data.transforms import resize_box

_GREY, _SPREAD = 115.0, 58.0  # of the noise in an erased box: about ImageNet's mean and deviation


@dataclass(frozen=True)
class Augment:
    """crop, then RandAugment, then erasing, then the last three. (The left-right flip is a property of the data set,
    not of a recipe.)

    crop           one of tubelet.data.crops
    rand_augment   timm's notation, as in "rand-m7-n4-mstd0.5-inc1"; None: no RandAugment
    erase          how often, in [0, 1], a box of 2% to 33% of the clip is filled with noise
    turn           turn the clip by 0, 90, 180 or 270 degrees (0 or 180 unless it is square)
    reverse        play half of the clips backwards
    recolour       exchange the colour channels, and make a negative of half of the clips

    The last three leave few labels true: they are for pretraining on few videos (docs/learning.md).
    """

    crop: Crop = field(default_factory=MultiScale)
    rand_augment: str | None = None
    erase: float = 0.0
    turn: bool = False
    reverse: bool = False
    recolour: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.erase <= 1.0:
            raise ValueError(f"erase must lie in [0, 1], got {self.erase}")
        if self.rand_augment is not None:
            _timm_transform(self.rand_augment, (224, 224))  # a mistake in the notation shows here, not in a worker

    @property
    def beside_crop(self) -> list[str]:
        """The names of what it does beside the crop."""
        return [each.name for each in fields(self) if each.name != "crop" and getattr(self, each.name)]

    def __call__(self, frames: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """uint8 [T,H,W,C] -> uint8 [T,h,w,C] with (h, w) = size."""
        box = self.crop(frames.shape[1], frames.shape[2], size, generator)
        frames = resize_box(frames, box, size)
        if self.rand_augment is not None:
            frames = rand_augment(frames, self.rand_augment, seed=draw(2**62, generator))
        if self.erase and float(torch.rand((), generator=generator)) < self.erase:
            frames = erase(frames, generator)
        if self.turn:
            frames = turn(frames, generator)
        if self.reverse and draw(2, generator):
            frames = frames.flip(0)
        return recolour(frames, generator) if self.recolour else frames


def turn(frames: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 [T,h,w,C] turned by a multiple of 90 degrees, or of 180 where h and w differ."""
    quarters = draw(4, generator) if frames.shape[1] == frames.shape[2] else 2 * draw(2, generator)
    return frames.rot90(quarters, dims=(1, 2))


def recolour(frames: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 [T,h,w,C] with its channels in another order, or a negative of that."""
    frames = frames[..., torch.randperm(frames.shape[-1], generator=generator)]
    return 255 - frames if draw(2, generator) else frames


def rand_augment(frames: Tensor, config: str, seed: int) -> Tensor:
    """timm's RandAugment on uint8 [T,h,w,C]: every frame is distorted from the same seed, hence in the same way."""
    transform = _timm_transform(config, tuple(frames.shape[1:3]))
    distorted = []
    for frame in frames.numpy():
        with seeded(seed):
            distorted.append(np.asarray(transform(Image.fromarray(frame))))
    return torch.from_numpy(np.stack(distorted))


@lru_cache(maxsize=8)
def _timm_transform(config: str, size: tuple[int, int]) -> Callable[[Image.Image], Image.Image]:
    from timm.data.auto_augment import rand_augment_transform  # timm is slow to import and only fine-tuning needs it

    hparams: dict[str, Any] = {"translate_const": int(0.45 * min(size)), "img_mean": (124, 116, 104)}
    try:
        return rand_augment_transform(config, hparams)
    except (AssertionError, ValueError) as error:
        raise ValueError(
            f"rand_augment {config!r} is not in timm's notation, such as rand-m7-n4-mstd0.5-inc1"
        ) from error


def erase(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Noise in one box of uint8 [T,h,w,C], the same in every frame."""
    box = random_box(frames.shape[1], frames.shape[2], (0.02, 1 / 3), (0.3, 3.3), generator)
    if box is None:
        return frames
    noise = torch.randn(box.height, box.width, frames.shape[3], generator=generator) * _SPREAD + _GREY
    frames = frames.clone()  # the box may cover pixels that other views share
    frames[:, box.top : box.top + box.height, box.left : box.left + box.width] = noise.clamp(0, 255).to(torch.uint8)
    return frames
