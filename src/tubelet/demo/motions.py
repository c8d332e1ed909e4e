"""Eight motions of an object, the demo data set.

One textured object moves in front of a textured background. Its motion is the label, and no single frame shows it. The
reason: x, y, angle and size are each periodic (an object that leaves the frame on one side enters on the other; an
object that has grown to its full size starts small again). Each starts at a random value, and the action changes one of
them at constant speed. So a single frame has the same distribution for all actions. Objects and backgrounds of the
validation split never occur in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tubelet.demo.video import FRAMES, SIZE, Range, Video, to_uint8

X, Y, ANGLE, SCALE = range(4)  # columns of a pose, each in [0, 1), one period
ACTIONS = {
    "left": (X, -1),
    "right": (X, +1),
    "up": (Y, -1),
    "down": (Y, +1),
    "clockwise": (ANGLE, +1),
    "counter-clockwise": (ANGLE, -1),
    "growing": (SCALE, +1),
    "shrinking": (SCALE, -1),
}

SPEED: Range = (0.7, 1.1)  # periods per video
RADIUS: Range = (0.16, 0.34)  # smallest and largest radius of the object, in frame widths
OUTLINE = (0.0, 0.3, 0.0)  # largest amplitude of each wave around the outline, in radii
EDGE = 0.6  # width of the soft edge, in radii: wide, so that a part of an object shows where the rest is
OBJECT_COLOUR: Range = (0.75, 1.0)
OBJECT_WAVELENGTH: Range = (2.0, 4.0)  # in radii of the object
BACKGROUND_COLOUR: Range = (0.0, 0.25)
BACKGROUND_WAVELENGTH: Range = (1.0, 2.0)  # in frame widths
OBJECTS = {"train": 64, "val": 16}  # different objects of a split, and as many backgrounds


class Motions(Video):
    labels = tuple(ACTIONS)
    stream = "demo"

    def poses(self) -> np.ndarray:
        """[T,4]: x, y, angle and size of the object in each frame, in [0,1) of their period."""
        rng = self.own("pose")
        start, speed = rng.uniform(size=4), rng.uniform(*SPEED)
        moving, direction = ACTIONS[self.action]
        poses = np.tile(start, (FRAMES, 1))
        poses[:, moving] += direction * speed * np.arange(FRAMES) / FRAMES
        return poses % 1.0

    def frames(self) -> np.ndarray:
        """uint8 [T,H,W,C], RGB."""
        # drawn in the same way for every action, so that appearance says nothing about the label
        chosen = self.own("appearance").integers(OBJECTS[self.split], size=2)
        moving_object = MovingObject.draw(self.rng("object", int(chosen[0])))
        backdrop = Texture.draw(self.rng("background", int(chosen[1])), BACKGROUND_COLOUR, BACKGROUND_WAVELENGTH)
        pixel = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE
        background = backdrop.colour(pixel[None, :], pixel[:, None]).reshape(-1, 3)  # [H*W,C]
        frames = np.tile(to_uint8(background), (FRAMES, 1, 1))
        for frame, (at, colour, coverage) in zip(
            frames, moving_object.paint(pixel, self.poses().astype(np.float32)), strict=True
        ):
            behind = background.take(at, axis=0)  # [K,C]
            frame[at] = to_uint8(behind + coverage * (colour - behind))
        return frames.reshape(FRAMES, SIZE, SIZE, 3)


@dataclass(frozen=True)
class Texture:
    """Two colours that alternate along the sum of a few plane waves. It is soft, and a part of it predicts the rest."""

    colours: np.ndarray  # [2,C]
    wave: np.ndarray  # [K,2] radians per unit length along x and y
    phase: np.ndarray  # [K]

    @classmethod
    def draw(cls, rng: np.random.Generator, colour: Range, wavelength: Range, waves: int = 2) -> Texture:
        angle, length = rng.uniform(0, 2 * np.pi, size=waves), rng.uniform(*wavelength, size=waves)
        wave = 2 * np.pi / length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        colours, phase = rng.uniform(*colour, size=(2, 3)), rng.uniform(0, 2 * np.pi, size=waves)
        return cls(colours.astype(np.float32), wave.astype(np.float32), phase.astype(np.float32))

    def colour(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """[...,C] in [0,1] at the points x, y, broadcast against each other."""
        waves = [np.sin(kx * x + ky * y + phase) for (kx, ky), phase in zip(self.wave, self.phase, strict=True)]
        mix = 0.5 + 0.5 * sum(waves) / len(waves)  # in [0,1]
        return self.colours[0] + mix[..., None] * (self.colours[1] - self.colours[0])


@dataclass(frozen=True)
class MovingObject:
    """A textured object. Its outline is a short Fourier series of the angle, so that its orientation is visible."""

    outline: np.ndarray  # [K] amplitudes of the waves 1..K around the outline, in radii
    phase: np.ndarray  # [K]
    texture: Texture

    @classmethod
    def draw(cls, rng: np.random.Generator) -> MovingObject:
        outline = rng.uniform(0.5, 1.0, size=len(OUTLINE)) * OUTLINE
        phase = rng.uniform(0, 2 * np.pi, size=len(OUTLINE))
        texture = Texture.draw(rng, OBJECT_COLOUR, OBJECT_WAVELENGTH, waves=1)
        return cls(outline.astype(np.float32), phase.astype(np.float32), texture)

    def paint(self, pixel: np.ndarray, poses: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each frame: the numbers of the K pixels of [H*W] that the object may cover, their colour [K,C], and how
        much it covers them, [K,1] in [0,1].

        `pixel` [SIZE] holds the coordinates of the pixels along each side; poses [T,4].
        """
        x, y, angle, size = poses.T  # [T] each
        # offset from the object's centre, in the shorter direction around the frame
        dx = (pixel - x[:, None] + 0.5) % 1.0 - 0.5  # [T,W]
        dy = (pixel - y[:, None] + 0.5) % 1.0 - 0.5  # [T,H]
        radius = RADIUS[0] * (RADIUS[1] / RADIUS[0]) ** size
        reach = radius * (1 + self.outline.sum() + EDGE / 2)
        # frame by frame: small arrays stay in the cache, and their memory is reused
        for frame in zip(dx, dy, np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle), radius, reach, strict=True):
            yield self._paint(*frame)

    def _paint(
        self, dx: np.ndarray, dy: np.ndarray, cos: float, sin: float, radius: float, reach: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.flatnonzero(dx**2 + dy[:, None] ** 2 < reach**2)
        dx, dy = dx.take(at % SIZE), dy.take(at // SIZE)
        # coordinates along the object's own axes, in units of its radius
        u, v = (cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius
        around = np.arctan2(v, u)
        outline = enumerate(zip(self.outline, self.phase, strict=True), 1)
        waves = [a * np.cos(k * around + b) for k, (a, b) in outline if a > 0]
        inside = np.clip((1 + sum(waves) - np.hypot(u, v)) / EDGE + 0.5, 0.0, 1.0)
        coverage = inside**2 * (3 - 2 * inside)  # smooth at both ends
        return at, self.texture.colour(u, v), coverage[:, None]
