"""Videos as pictures: a film strip (PNG) or a film (GIF, MP4)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from tubelet import storage
from tubelet.evaluate.reconstruction import Reconstruction

CAPTION = 14  # height of a line of text in pixels
SIDE = 128  # frames that are smaller are enlarged to about this height


def save_reconstructions(result: Reconstruction, path: str | Path, frames: int = 8, fps: float = 8.0) -> Path:
    """Write a batch of reconstructions to `path`: see `save_videos`."""
    return save_videos(result[:3], reconstruction_labels(result), path, frames, fps)


def reconstruction_labels(result: Reconstruction) -> tuple[str, str, str]:
    """The text above each of the three videos."""
    return "original", "what the model sees", result.caption


def save_videos(
    videos: Sequence[Tensor], labels: Sequence[str], path: str | Path, frames: int = 8, fps: float = 8.0
) -> Path:
    """Write videos of the same clips to `path`, each under its label; the ending chooses the kind. A `.png` shows
    `frames` frames per clip, and the videos one below the other. In a `.gif` or `.mp4` they play side by side.

    videos: each [B,T,H,W,C] in [0, 1], of the same size; C is 1 or 3.
    """
    path = check_picture(path)
    pixels = [_to_uint8(video) for video in videos]  # each [B,T,H,W,C]
    scale = max(1, round(SIDE / pixels[0].shape[2]))
    if path.suffix == ".png":
        _write_image(path, _strip(pixels, labels, frames, scale))
    else:
        write_film(path, side_by_side(pixels, labels, scale), fps)
    return path


def check_picture(path: str | Path) -> Path:
    """`path`, as a Path. Raises ValueError for an ending that is not .png, .gif or .mp4, IsADirectoryError for a
    directory.
    """
    path = Path(path)
    if path.suffix not in (".png", ".gif", ".mp4"):
        raise ValueError(f"cannot write '{path}': the ending must be .png, .gif or .mp4")
    storage.keep_directory(path)
    return path


def _to_uint8(video: Tensor) -> np.ndarray:
    pixels = (video * 255).round().byte().cpu().numpy()
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels[..., :3]


def _caption(picture: np.ndarray, texts: Sequence[str], width: int) -> np.ndarray:
    """A line of text above the picture [H,W,3], one text every `width` pixels."""
    image = Image.new("RGB", (picture.shape[1], picture.shape[0] + CAPTION), "white")
    image.paste(Image.fromarray(picture), (0, CAPTION))
    draw = ImageDraw.Draw(image)
    for i, text in enumerate(texts):
        while draw.textlength(text) > width - 4:  # the next text begins there
            text = text[:-1]
        draw.text((i * width + 2, 1), text, fill="black")
    return np.asarray(image)


def _strip(videos: list[np.ndarray], labels: Sequence[str], frames: int, scale: int) -> np.ndarray:
    shown = np.linspace(0, videos[0].shape[1] - 1, min(frames, videos[0].shape[1])).round().astype(int)
    rows = []
    for clip in range(len(videos[0])):
        for video, label in zip(videos, labels, strict=True):
            row = np.concatenate([_with_margin(_enlarge(video[clip, t], scale)) for t in shown], axis=1)
            rows.append(_caption(row, [label], row.shape[1]))
    return np.concatenate(rows, axis=0)


def side_by_side(videos: list[np.ndarray], labels: Sequence[str], scale: int) -> np.ndarray:
    """[T,H,W,3]: one row per clip, the videos side by side."""
    film = []
    for t in range(videos[0].shape[1]):
        rows = [
            np.concatenate([_with_margin(_enlarge(video[clip, t], scale)) for video in videos], axis=1)
            for clip in range(len(videos[0]))
        ]
        picture = np.concatenate(rows, axis=0)
        film.append(_caption(picture, labels, picture.shape[1] // len(videos)))
    return np.stack(film)


def _with_margin(frame: np.ndarray) -> np.ndarray:
    """Add a white margin on the right and below, so that neighbouring frames do not touch."""
    return np.pad(frame, ((0, 2), (0, 2), (0, 0)), constant_values=255)


def _enlarge(frame: np.ndarray, scale: int) -> np.ndarray:
    """Smoothly: the squares of an enlarged frame would look like patches."""
    size = (frame.shape[1] * scale, frame.shape[0] * scale)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def _write_image(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage.replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def write_film(path: Path, film: np.ndarray, fps: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage.replacing(path) as temporary:
        if path.suffix == ".gif":
            first, *rest = [Image.fromarray(picture).quantize(128) for picture in film]
            first.save(temporary, format="GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
        else:
            height, width = film.shape[1] // 2 * 2, film.shape[2] // 2 * 2  # yuv420p needs even sizes
            with av.open(str(temporary), "w", format="mp4") as container:
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                for picture in film:
                    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
                    container.mux(stream.encode(frame))
                container.mux(stream.encode())
