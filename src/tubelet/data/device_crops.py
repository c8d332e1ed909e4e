"""Crop, resize and flip on the device: `data.crops=device`.

The loader then only decodes. A batch carries the frames of each video once, as uint8 at the size of the file, and for
each of its R views a box and whether it is mirrored, drawn from the same keys as in the loader. Boxes are plain numbers
on the host, so the host waits for nothing. The device computes in float32 where the loader rounds to uint8, so pixels
differ by less than one of 255 steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from tubelet.data.crops import Box, Size, draw
from tubelet.data.dataset import Batch, TrainingVideos
from tubelet.data.randomness import generator
from tubelet.data.sampler import Slot
from tubelet.masking import Mask


@dataclass(frozen=True)
class View:
    """One clip of a video: a box of its frames, mirrored left and right or not."""

    box: Box
    mirrored: bool


@dataclass(frozen=True)
class Frames:
    """A decoded video and what to make of it: `frames` uint8 [T,H,W,C], `hidden` bool [R,N] or None."""

    frames: Tensor
    plan: tuple[View, ...]
    hidden: Tensor | None
    label: Tensor
    index: int


@dataclass(frozen=True)
class FramesBatch:
    """`pixels` uint8 [bytes]: the frames of all videos one after the other, each of the shape [T,H,W,C] that `shapes`
    says, for videos differ in size. The rest is as in `Batch`, which `crop` makes of it.
    """

    pixels: Tensor
    shapes: list[tuple[int, ...]]
    plans: list[tuple[View, ...]]
    mask: Mask | None
    label: Tensor
    index: Tensor
    views: int

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> FramesBatch:
        return FramesBatch(
            self.pixels.to(device, non_blocking=non_blocking),
            self.shapes,
            self.plans,
            None if self.mask is None else self.mask.to(device, non_blocking=non_blocking),
            self.label.to(device, non_blocking=non_blocking),
            self.index.to(device, non_blocking=non_blocking),
            self.views,
        )

    def pin_memory(self) -> FramesBatch:
        mask = None if self.mask is None else self.mask.pin_memory()
        label, index = self.label.pin_memory(), self.index.pin_memory()
        return FramesBatch(self.pixels.pin_memory(), self.shapes, self.plans, mask, label, index, self.views)

    def crop(self, size: Size) -> Batch:
        """A batch whose `clip` is float32 [B,C,T,h,w] with (h, w) = size, in [0, 255]: not normalised yet."""
        videos = self.pixels.split([prod(shape) for shape in self.shapes])
        clips = [
            crop_view(video.view(shape), view, size)
            for video, shape, plan in zip(videos, self.shapes, self.plans, strict=True)
            for view in plan
        ]
        return Batch(torch.stack(clips), self.mask, self.label, self.index, self.views)


class UncroppedVideos(TrainingVideos):
    """Training videos that are only decoded. Raises ValueError for augmentations that only the loader has."""

    def __getitem__(self, slot: Slot) -> Frames:  # type: ignore[override]
        epoch, index = slot
        frames, record = self._frames(epoch, index)  # [T,H,W,C]
        keys = [generator(self.seed, epoch, index, "view", view) for view in range(self.repeats)]
        plan = tuple(self._plan(frames, key) for key in keys)
        return Frames(frames, plan, self._hidden(epoch, index, self.repeats), self.labels.of(record), index)

    def _plan(self, frames: Tensor, key: torch.Generator) -> View:
        """Draws what the loader would draw, in the same order."""
        box = self.augment.crop(frames.shape[1], frames.shape[2], self.size, key)
        return View(box, self.flip and bool(draw(2, key)))


def collate_frames(samples: Sequence[Frames]) -> FramesBatch:
    views = len(samples[0].plan)
    hidden = [sample.hidden for sample in samples if sample.hidden is not None]
    return FramesBatch(
        torch.cat([sample.frames.reshape(-1) for sample in samples]),
        [tuple(sample.frames.shape) for sample in samples],
        [sample.plan for sample in samples],
        Mask.from_hidden(torch.cat(hidden)) if hidden else None,
        torch.stack([sample.label for sample in samples]).repeat_interleave(views, dim=0),
        torch.tensor([sample.index for sample in samples]).repeat_interleave(views),
        views,
    )


def crop_view(frames: Tensor, view: View, size: Size) -> Tensor:
    """uint8 [T,H,W,C] -> float32 [C,T,h,w] in [0, 255]: the box, resized (bilinear, antialiased), perhaps mirrored."""
    box = view.box
    part = frames[:, box.top : box.top + box.height, box.left : box.left + box.width]
    images = part.permute(0, 3, 1, 2).float()  # [T,C,H,W]
    if images.shape[2:] != size:
        images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    return (images.flip(3) if view.mirrored else images).transpose(0, 1)
