"""Sources that do not wait: cameras and addresses on the network, as sampled frames."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from typing import Any

from tubelet.data.reader import Shrink, VideoError
from tubelet.data.reader.pyav import PyavVideo
from tubelet.data.sampling import Sampling
from tubelet.data.windows import Moment, shown_frames, shrunk

_CAMERAS = {  # platform -> format of FFmpeg, and its name of camera n
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
    "win32": ("dshow", "video={}"),
}
_WAIT = (10.0, 10.0)  # seconds to connect, and for the next bytes


def source_of(name: str, platform: str = sys.platform) -> tuple[Any, str | None, dict[str, str]]:
    """What FFmpeg opens, its format or None, and its options, for `-` (standard input), `webcam`, `webcam:1` (the
    second camera; on Windows its name) or an address such as rtsp://... Raises ValueError for a camera on an unknown
    system.
    """
    if name == "-":
        return sys.stdin.buffer, None, {}
    if match := re.fullmatch(r"webcam(?::(.+))?", name):
        if platform not in _CAMERAS:
            raise ValueError(f"no cameras are known on {platform}: give the address or file that FFmpeg opens")
        kind, camera = _CAMERAS[platform]
        return camera.format(match[1] or "0"), kind, {"framerate": "30"} if platform == "darwin" else {}
    return name, None, {"rtsp_transport": "tcp"} if name.startswith("rtsp://") else {}  # over UDP, frames are damaged


class LiveVideo(PyavVideo):
    """A source that is read once, from now on. Raises VideoError if it cannot be opened, or where it breaks off."""

    def __init__(self, name: str) -> None:
        self._source = source_of(name)
        super().__init__(name)

    def _connect(self) -> Any:
        import av

        file, kind, options = self._source
        remote = isinstance(file, str) and "://" in file
        return av.open(file, format=kind, options=options, timeout=_WAIT if remote else None)


def live_moments(name: str, sampling: Sampling, shrink: Shrink) -> Iterator[Moment]:
    """The sampled frames of a live source, in seconds after its first frame, and its end.

    With a frame rate, the first frame at or after each moment is taken, so that none has to be waited for. Raises
    VideoError.
    """
    with LiveVideo(name) as video:
        taken = 0
        for number, time, picture in shown_frames(video, video.fps):
            last, end = picture, time + (1 / video.fps if video.fps else 0.0)
            if sampling.fps is None:
                due = number // sampling.stride + 1
            elif math.isnan(time):
                raise VideoError(name, "does not say when its frames are shown: set a frame stride instead of a rate")
            else:
                due = math.floor(time * sampling.fps + 1e-6) + 1
            if due > taken:
                small = shrunk(picture, shrink)
                for _ in range(due - taken):
                    yield Moment(time, small)
                taken = due
        if taken == 0:
            raise VideoError(name, "has no frame that can be decoded")
        yield Moment(end, shrunk(last, shrink), end=True)
