"""The pictures that runs have drawn of the same clips, frame by frame, so that one slider moves all of them."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageSequence, features

from tubelet.report.table import Run

_WIDTH = 720
"""Of a frame, at most; the page shows a film about 480 pixels wide."""


def newest_picture(run: Run) -> Path | None:
    """The film (.gif) or else the picture (.png) of the run's last reconstructions or features; None if it has none."""
    found = sorted(run.path.glob("*/step_*.png"), key=lambda path: path.name) + sorted(run.path.glob("*/step_*.gif"))
    if not found:
        return None
    newest = max(path.stem for path in found)
    return [path for path in found if path.stem == newest][-1]


def frames_of(film: Path) -> list[bytes]:
    """The frames of a film as WebP, or as PNG where Pillow has no WebP. [] for a film that cannot be read."""
    return _frames(film, film.stat().st_mtime_ns)


def media_type(picture: bytes) -> str:
    return "image/webp" if picture[8:12] == b"WEBP" else "image/png"


@lru_cache(maxsize=256)
def _frames(film: Path, _written: int) -> list[bytes]:
    kind = {"format": "WEBP", "quality": 85} if features.check("webp") else {"format": "PNG"}
    frames = []
    try:
        with Image.open(film) as image:
            for frame in ImageSequence.Iterator(image):
                picture = frame.convert("RGB")
                if picture.width > _WIDTH:
                    picture = picture.resize((_WIDTH, round(picture.height * _WIDTH / picture.width)))
                data = io.BytesIO()
                picture.save(data, **kind)
                frames.append(data.getvalue())
    except OSError:  # of a killed run
        return []
    return frames
