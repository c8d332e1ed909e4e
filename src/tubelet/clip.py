"""The legend of all shape comments, and the grid of tokens that a clip is cut into.

    B  clips in a batch      C  channels         T  frames          H, W  pixels of a frame
    t  time steps (T / tubelet)   h, w  patch rows and columns       N = t*h*w  tokens of a clip
    V  visible tokens        M  tokens to predict    S  visible positions of one time step (V = t*S for a tube mask)
    D  width of a token      P  numbers in a patch = tubelet * patch * patch * C

Tokens are ordered `(t h w)`: time changes slowest. The numbers inside a target patch are ordered `(p0 p1 p2 c)`, where
p0 is the frame within the tubelet. This is VideoMAE's order, and the weights of its decoder head depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClipGrid:
    """A clip of `frames` x `height` x `width` pixels cut into tubelets of `tubelet` x `patch` x `patch`.

    Every size in the project is derived from this record. Raises ValueError if the tubelets do not tile the clip.
    """

    frames: int
    height: int
    width: int
    tubelet: int
    patch: int

    def __post_init__(self) -> None:
        for name in ("frames", "height", "width", "tubelet", "patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.frames % self.tubelet:
            raise ValueError(f"num_frames {self.frames} is not divisible by tubelet_size {self.tubelet}")
        for name in ("height", "width"):
            if getattr(self, name) % self.patch:
                raise ValueError(f"image {name} {getattr(self, name)} is not divisible by patch_size {self.patch}")

    @property
    def t(self) -> int:
        return self.frames // self.tubelet

    @property
    def h(self) -> int:
        return self.height // self.patch

    @property
    def w(self) -> int:
        return self.width // self.patch

    @property
    def N(self) -> int:
        return self.t * self.h * self.w

    def patch_numel(self, channels: int) -> int:
        """P, the numbers in one patch."""
        return self.tubelet * self.patch * self.patch * channels
