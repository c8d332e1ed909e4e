"""A texture with detail of many sizes, so that its patches look alike wherever they are cut from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tubelet.demo.video import Range

WAVES = 12


@dataclass(frozen=True)
class FineTexture:
    """The sum of plane waves, each with a colour of its own."""

    mean: np.ndarray  # [C]
    colours: np.ndarray  # [K,C] amplitudes
    wave: np.ndarray  # [K,2] radians per unit length along x and y
    phase: np.ndarray  # [K]

    @classmethod
    def draw(cls, rng: np.random.Generator, wavelength: Range, contrast: float, colour: Range) -> FineTexture:
        """Wavelengths are drawn log-uniformly: no scale stands out. contrast: deviation of a texture, in [0, 1]."""
        length = np.exp(rng.uniform(np.log(wavelength[0]), np.log(wavelength[1]), size=WAVES))
        angle, phase = rng.uniform(0, 2 * np.pi, size=(2, WAVES))
        wave = 2 * np.pi / length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        mean, colours = rng.uniform(*colour, size=3), rng.normal(size=(WAVES, 3)) * contrast * (2 / WAVES) ** 0.5
        return cls(*(part.astype(np.float32) for part in (mean, colours, wave, phase)))

    def colour(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """[...,C] in [0,1] at the points x, y, broadcast against each other."""
        waves = np.sin(x[..., None] * self.wave[:, 0] + y[..., None] * self.wave[:, 1] + self.phase)
        return np.clip(self.mean + waves @ self.colours, 0.0, 1.0)
