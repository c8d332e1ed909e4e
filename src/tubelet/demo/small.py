"""Six motions of a small object over a static, finely textured background.

The object covers 6% of the frame. Pixels of the background are most of an ordinary pixel loss, and copying them from
another frame is most of its lesson. As in the motions: positions are periodic and start anywhere, so no single frame
shows the class.
"""

from __future__ import annotations

import numpy as np

from tubelet.demo.texture import FineTexture
from tubelet.demo.video import FRAMES, SIZE, Range, Video, to_uint8

STRAIGHT = {"left": (-1, 0), "right": (+1, 0), "up": (0, -1), "down": (0, +1)}
CIRCLES = {"clockwise": +1, "counter-clockwise": -1}  # y points down
SPEED: Range = (0.7, 1.1)  # frame widths, or turns, per video
ORBIT: Range = (0.15, 0.25)  # radius of the circles, in frame widths
RADIUS: Range = (0.12, 0.155)  # of the object, in frame widths
EDGE = 0.2  # width of the soft edge, in radii
BACKGROUND_WAVELENGTH: Range = (0.06, 0.3)  # in frame widths
BACKGROUND_COLOUR: Range = (0.3, 0.7)
OBJECT_WAVELENGTH: Range = (0.6, 2.0)  # in radii
OBJECT_COLOUR: Range = (0.0, 1.0)
CONTRAST = 0.12  # of both textures


class SmallObjects(Video):
    labels = (*STRAIGHT, *CIRCLES)
    stream = "small"

    def path_of_object(self) -> np.ndarray:
        """[T,2]: x and y of its centre in frame widths, in [0, 1)."""
        rng = self.own("pose")
        start, speed, orbit, turn = rng.uniform(size=2), rng.uniform(*SPEED), rng.uniform(*ORBIT), rng.uniform()
        time = speed * np.arange(FRAMES)[:, None] / FRAMES
        if self.action in STRAIGHT:
            return (start + time * np.array(STRAIGHT[self.action])) % 1.0
        angle = 2 * np.pi * (turn + CIRCLES[self.action] * time)
        return (start + orbit * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)) % 1.0

    def frames(self) -> np.ndarray:
        # a texture for every video, drawn in the same way for every class
        rng = self.own("appearance")
        backdrop = FineTexture.draw(rng, BACKGROUND_WAVELENGTH, CONTRAST, BACKGROUND_COLOUR)
        surface = FineTexture.draw(rng, OBJECT_WAVELENGTH, CONTRAST, OBJECT_COLOUR)
        radius = rng.uniform(*RADIUS)
        pixel = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE
        background = backdrop.colour(pixel[None, :], pixel[:, None])  # [H,W,C]
        frames = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8)
        for frame, (x, y) in zip(frames, self.path_of_object().astype(np.float32), strict=True):
            # offset from the centre in radii, in the shorter direction around the frame
            u = ((pixel - x + 0.5) % 1.0 - 0.5)[None, :] / radius
            v = ((pixel - y + 0.5) % 1.0 - 0.5)[:, None] / radius
            coverage = np.clip((1 - np.hypot(u, v)) / EDGE + 0.5, 0.0, 1.0)[..., None]
            frame[:] = to_uint8(background + coverage * (surface.colour(u, v) - background))
        return frames
