"""Eight motions of the camera over a texture without an object: pans, zooms and shakes.

Start, scale and texture of every video are drawn in the same way for every class. The scales of a zoom are those of all
other videos, too, so no single frame shows the class.
"""

from __future__ import annotations

import numpy as np

from tubelet.demo.texture import FineTexture
from tubelet.demo.video import FRAMES, SIZE, Range, Video, to_uint8

PANS = {"pan-left": (-1, 0), "pan-right": (+1, 0), "pan-up": (0, -1), "pan-down": (0, +1)}
ZOOMS = {"zoom-in": -1, "zoom-out": +1}
SHAKES = {"shake-sideways": (1, 0), "shake-up-and-down": (0, 1)}
SPEED: Range = (0.7, 1.1)  # of a pan in frame widths, and of a zoom in octaves, per video
AMPLITUDE: Range = (0.06, 0.12)  # of a shake, in frame widths
SHAKE_FRAMES: Range = (14.0, 22.0)  # one period of a shake
SCALE: Range = (-0.3, 0.3)  # of the world, in octaves
WAVELENGTH: Range = (0.15, 1.2)  # of the texture, in frame widths at scale 0
COLOUR: Range = (0.3, 0.7)
CONTRAST = 0.2


class CameraMotions(Video):
    labels = (*PANS, *ZOOMS, *SHAKES)
    stream = "camera"

    def camera(self) -> np.ndarray:
        """[T,3]: x and y of the centre of the view in frame widths, and the width of the view in octaves."""
        rng = self.own("pose")
        centre, speed, scale = rng.uniform(-50, 50, size=2), rng.uniform(*SPEED), rng.uniform(*SCALE)
        amplitude, period, phase = rng.uniform(*AMPLITUDE), rng.uniform(*SHAKE_FRAMES), rng.uniform(0, 2 * np.pi)
        elsewhere = rng.uniform(-0.5, 0.5)  # videos that do not zoom have the scale of a random moment of one that does
        time = np.arange(FRAMES) / (FRAMES - 1) - 0.5
        poses = np.tile([*centre, scale + speed * elsewhere], (FRAMES, 1))
        if self.action in ZOOMS:
            poses[:, 2] = scale + ZOOMS[self.action] * speed * time
        elif self.action in PANS:
            poses[:, :2] += speed * time[:, None] * np.array(PANS[self.action])
        else:
            wave = amplitude * np.sin(2 * np.pi * np.arange(FRAMES) / period + phase)
            poses[:, :2] += wave[:, None] * np.array(SHAKES[self.action])
        return poses

    def frames(self) -> np.ndarray:
        texture = FineTexture.draw(self.own("appearance"), WAVELENGTH, CONTRAST, COLOUR)
        pixel = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE - 0.5
        frames = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8)
        for frame, (x, y, octave) in zip(frames, self.camera(), strict=True):
            offset = (2**octave * pixel).astype(np.float32)
            frame[:] = to_uint8(texture.colour(np.float32(x) + offset[None, :], np.float32(y) + offset[:, None]))
        return frames
