"""torchcodec in its exact mode: it reads all packets on opening, so that frame n is frame n. It needs FFmpeg's shared
libraries and a version that fits torch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tubelet.data.reader.video import Video, VideoError, first_line

_ERRORS = (RuntimeError, ValueError, IndexError, OSError)


class TorchcodecVideo(Video):
    def __init__(self, path: str) -> None:
        from torchcodec.decoders import VideoDecoder

        self.path = path
        try:
            self._decoder: Any = VideoDecoder(
                path, dimension_order="NHWC", num_ffmpeg_threads=1, device="cpu", seek_mode="exact"
            )
        except _ERRORS as error:
            raise VideoError(path, first_line(error)) from error
        self.fps = float(self._decoder.metadata.average_fps or 0.0)

    @property
    def num_frames(self) -> int:
        return len(self._decoder)

    def frames(self, numbers: Sequence[int]) -> Tensor:
        self._check(numbers, len(self._decoder))
        try:
            return self._decoder.get_frames_at(indices=list(numbers)).data  # [T,H,W,C]
        except _ERRORS as error:
            raise VideoError(self.path, first_line(error)) from error

    def close(self) -> None:
        self._decoder = None
