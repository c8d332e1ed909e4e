"""decord: exact on most files; wrong on others, never to be asked for more frames than there are (dmlc/decord#373).
docs/videos.md lists the kinds; without `tubelet verify` only files of the right ones come here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.data.reader.video import Video, VideoError, first_line

_TRANSPORT = ((0, 188), (4, 192), (0, 204))
"""Where the first "G" of an MPEG transport stream stands, and the distance of the next ones, in bytes (.ts, .m2ts)."""


class DecordVideo(Video):
    def __init__(self, path: str) -> None:
        # imported here, in the worker; and give up soon, not after minutes, on frames that never come
        os.environ.setdefault("DECORD_EOF_RETRY_MAX", "128")
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        self.path = path
        self._errors = (decord.DECORDError, RuntimeError, OSError)
        try:
            _check_head(path)
            self._reader: Any = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
            self.fps = float(self._reader.get_avg_fps())
        except self._errors as error:
            raise VideoError(path, first_line(error)) from error
        if len(self._reader) < 1:
            raise VideoError(path, "has no video frames")

    @property
    def num_frames(self) -> int:
        return len(self._reader)

    def frames(self, numbers: Sequence[int]) -> Tensor:
        self._check(numbers, len(self._reader))
        # each frame once and in order: decord seeks back for anything else
        unique, inverse = np.unique(np.asarray(numbers), return_inverse=True)
        try:
            frames = self._reader.get_batch(unique.tolist()).asnumpy()  # [U,H,W,C]
        except self._errors as error:
            raise VideoError(self.path, first_line(error)) from error
        return torch.from_numpy(frames if np.array_equal(unique, numbers) else frames[inverse])

    def close(self) -> None:
        self._reader = None


def _check_head(path: str) -> None:
    """Raises VideoError for what decord does not survive. In an MPEG transport stream it never reaches the last frames,
    and does not stop looking for them. It makes room for as many frames as an .avi claims to have, and aborts the
    process if there is not enough: no file of this size can keep a claim of less than 8 bytes per frame.
    """
    with open(path, "rb") as file:
        head = file.read(4096)
    if any(head[at : at + 3 * step : step] == b"GGG" for at, step in _TRANSPORT):
        raise VideoError(path, "is an MPEG transport stream, which decord cannot search: use data.reader=auto")
    video = head.find(b"strh") if head[:4] == b"RIFF" else -1
    while video >= 0 and head[video + 8 : video + 12] != b"vids":
        video = head.find(b"strh", video + 4)
    if 0 <= video <= len(head) - 44:
        (claimed,) = struct.unpack_from("<I", head, video + 8 + 32)  # dwLength of an AVISTREAMHEADER
        if claimed > os.path.getsize(path) // 8:
            raise VideoError(path, f"claims to have {claimed} frames in {os.path.getsize(path)} bytes")
