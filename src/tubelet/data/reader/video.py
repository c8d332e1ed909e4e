"""What every reader is: an opened file that hands out frames by number."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from types import TracebackType

import torch
from torch import Tensor

Shrink = Callable[[Tensor], Tensor]
"""Frames uint8 [T,H,W,C] -> something smaller [T,...], each frame for itself."""

PIECE = 8  # frames that lie in memory at their full size while others are shrunk


class VideoError(ValueError):
    """A video that cannot be read: which, and why."""

    def __init__(self, path: str | os.PathLike[str], reason: str = "") -> None:
        # one argument must do: the loader raises a worker's error again from its text alone
        self.path, self.reason = str(path), reason
        super().__init__(f"{path}: {reason}" if reason else str(path))


class Video:
    """An opened file, to be used in a `with`. `fps` is its average rate, 0 if it has none."""

    path: str
    fps: float

    @property
    def num_frames(self) -> int:
        """What the container promises, which may be more than can be decoded."""
        raise NotImplementedError

    def frames(self, numbers: Sequence[int]) -> Tensor:
        """uint8 [T,H,W,C] as a player shows them, in the order of `numbers`, which may repeat. Raises VideoError."""
        raise NotImplementedError

    def shrunk(self, numbers: Sequence[int], shrink: Shrink) -> Tensor:
        """`shrink(frames(numbers))`, of which only a few lie in memory at their full size."""
        unique = sorted(set(numbers))
        self._check(unique, unique[-1] + 1 if unique else 0)
        pieces = [shrink(self.frames(unique[i : i + PIECE])) for i in range(0, len(unique), PIECE)]
        place = {number: i for i, number in enumerate(unique)}
        return torch.cat(pieces)[[place[number] for number in numbers]]

    def close(self) -> None:
        """Let go of the decoder."""
        raise NotImplementedError

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, numbers: Sequence[int], num_frames: int) -> None:
        if len(numbers) == 0 or min(numbers) < 0 or max(numbers) >= num_frames:
            asked = f"{min(numbers)} to {max(numbers)}" if len(numbers) else "none"
            raise VideoError(self.path, f"has {num_frames} frames, asked for {asked}")


def first_line(error: BaseException) -> str:
    """Native errors carry a time and a source line before their text, and a stack trace behind it."""
    # an error of the operating system or of FFmpeg would repeat the path
    line = (str(getattr(error, "strerror", None) or error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", line)
