"""What to say of a training list that nobody has verified."""

from __future__ import annotations

import os

from tubelet.data.manifest import Manifest
from tubelet.data.reader import VideoError
from tubelet.data.reader.pyav import PyavVideo
from tubelet.data.worker import cores

_SAMPLES = 8
_PIXELS_PER_SECOND = 100e6  # of one core that decodes H.264 and compares readers


def unverified(manifest: Manifest, path: str) -> str | None:
    """What verifying would cost; None if every video has been verified."""
    unknown = manifest.table["status"].null_count
    if not unknown:
        return None
    cost = _seconds_of_one(manifest)
    price = "" if cost is None else f", about {_duration(cost * unknown / cores())} on {cores()} cores"
    return (
        f"{unknown:,} of {len(manifest):,} videos of {path} are not verified: each is looked at before it is read, "
        f"those of an unusual kind are decoded from their start, and bad ones are met while training. "
        f"`tubelet verify {path} --out VERIFIED.csv` decodes each once{price}"
    )


def _seconds_of_one(manifest: Manifest) -> float | None:
    """Of one core, for a video of a mean length, by a few of the list; none of their pictures is decoded."""
    found = []
    for i in range(0, len(manifest), max(1, len(manifest) // _SAMPLES)):
        path = manifest.record(i).path
        if os.path.isfile(path):
            try:
                with PyavVideo(path) as video:
                    assert isinstance(video, PyavVideo)
                    found.append(video.num_frames * video.stream.width * video.stream.height / _PIXELS_PER_SECOND)
            except VideoError:
                continue
    return sum(found) / len(found) if found else None


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
