"""A directory of numbered images, such as `img_00001.jpg …`, as a video."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tubelet.data.reader.video import Video, VideoError, first_line

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class ImageDirectory(Video):
    """Frame n is the image with the n-th smallest number: 2 comes before 10, and gaps do not count."""

    def __init__(self, path: str) -> None:
        self.path, self.fps = path, 0.0
        try:
            names = os.listdir(path)
        except OSError as error:
            raise VideoError(path, first_line(error)) from error
        try:
            self._names = numbered(names)
        except ValueError as error:
            raise VideoError(path, str(error)) from error

    @property
    def num_frames(self) -> int:
        return len(self._names)

    def frames(self, numbers: Sequence[int]) -> Tensor:
        self._check(numbers, len(self._names))
        images = {number: self._read(self._names[number]) for number in sorted(set(numbers))}
        if len(sizes := {image.shape[:2] for image in images.values()}) > 1:
            raise VideoError(self.path, f"its images differ in size: {sorted(sizes)} (height, width)")
        return torch.stack([torch.from_numpy(images[number]) for number in numbers])  # [T,H,W,C]

    def close(self) -> None:
        pass

    def _read(self, name: str) -> np.ndarray:
        try:
            with Image.open(os.path.join(self.path, name)) as image:
                ImageOps.exif_transpose(image, in_place=True)  # upright, as cameras say in a note
                return np.array(_with_8_bits(image).convert("RGB"))  # [H,W,C]
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise VideoError(self.path, f"{name}: {first_line(error)}") from error


def _with_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits: PIL would clip it at 255. Raises ValueError for numbers without a fixed range."""
    if image.mode == "F":
        raise ValueError("holds floating-point numbers, not grey levels: save it with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))


def numbered(names: Iterable[str]) -> list[str]:
    """The images among the names, in order. Raises ValueError if there are none, or if they are not one series: colour
    and flow often lie side by side.
    """
    found: dict[tuple[str, int], str] = {}
    for name in names:
        stem, extension = os.path.splitext(name)
        match = re.fullmatch(r"(.*?)(\d+)\D*", stem)
        if match and extension.lower() in EXTENSIONS and not name.startswith("."):
            key = (match[1], int(match[2]))
            if key in found:
                raise ValueError(f"{found[key]} and {name} have the same number")
            found[key] = name
    if not found:
        raise ValueError("is a directory without numbered images")
    if len(series := sorted({prefix for prefix, _ in found})) > 1:
        raise ValueError(f"holds {len(series)} series of images, {series[0]}* and {series[1]}*")
    return [found[key] for key in sorted(found)]
