"""`for window in stream(model, video)`: what a model says of a video as it goes on, window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor

from tubelet.data.background import in_threads, latest
from tubelet.data.live import live_moments
from tubelet.data.reader import VideoError
from tubelet.data.windows import VideoWindows, Window, cut, window_sampling
from tubelet.data.worker import cores
from tubelet.evaluate.device import device_of
from tubelet.evaluate.window_features import WindowFeatures
from tubelet.models.base import encoder_of
from tubelet.models.classifier import VideoClassifier

_BATCH = 8  # windows of a file; of a live source, each by itself


@dataclass(frozen=True)
class Streamed:
    """A window, and what the model says of it.

    start, end  in seconds after the first frame
    valid       frames of the window that are in the video; the others repeat the last one
    values      float32: of a classifier its scores [classes] (probabilities, or the numbers of a regression), of any
                other model the mean token [D]
    picture     the middle frame, uint8 [h,w,C]
    dropped     windows of a live source that were left out so far, because the model was too slow
    """

    start: float
    end: float
    valid: int
    values: Tensor
    picture: Tensor
    dropped: int = 0


def stream(
    model: Any,
    video: str | PathLike[str],
    *,
    stride: int | None = None,
    frame_stride: int | None = None,
    fps: float | None = None,
    live: bool = False,
) -> Iterator[Streamed]:
    """Every window of a video, in order, in constant memory: it is decoded in a thread while the model computes.

    Args:
        model: a classifier, or anything with an encoder; a window has the frames of its clip.
        video: a file or a directory of images; with `live` also `rtsp://...` or whatever FFmpeg opens, `webcam`, `-`.
        stride: sampled frames from one window to the next; None: the length of a window.
        frame_stride, fps: frames of the file from one sampled frame to the next, or sampled frames per second; None: as
            the model was trained.
        live: do not wait for the model: windows that it has no time for are dropped, and counted.

    Raises ValueError for settings that do not fit the model, VideoError where the source cannot be read.
    """
    grid, preprocess = encoder_of(model).grid, model.preprocess
    stride = grid.frames if stride is None else stride
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    sampling = window_sampling(preprocess.frames(), frame_stride, fps)
    shrink = preprocess.shrinker((grid.height, grid.width))
    values = _values_of(model)
    if live:
        source = partial(live_moments, fspath(video), sampling, shrink)
        return _live(lambda: cut(source(), grid.frames, stride), values)
    return _whole(VideoWindows(video, sampling, shrink, grid.frames, stride, cores()), values)


def _values_of(model: Any) -> Callable[[list[Window]], Tensor]:
    """Windows -> float32 [windows,...] on the CPU."""
    if not isinstance(model, VideoClassifier):
        encoder = encoder_of(model)
        features = WindowFeatures(encoder.eval(), model.preprocess)
        return lambda windows: features(torch.stack([window.clip for window in windows]))

    @torch.no_grad()
    def scores(windows: list[Window]) -> Tensor:
        clip = torch.stack([window.clip for window in windows]).permute(0, 4, 1, 2, 3)  # [B,C,T,h,w]
        return model.scores(model(model.preprocess.normalise(clip.to(device_of(model))))).cpu()

    model.eval()
    return scores


def _whole(windows: VideoWindows, values: Callable[[list[Window]], Tensor]) -> Iterator[Streamed]:
    batch: list[Window] = []
    for _, item in in_threads([partial(iter, windows)], 1, 2 * _BATCH):
        if isinstance(item, Window):
            batch.append(item)
        if batch and (len(batch) == _BATCH or not isinstance(item, Window)):
            yield from map(_streamed, batch, values(batch))
            batch = []
        if isinstance(item, VideoError):
            raise item


def _live(windows: Callable[[], Iterator[Window]], values: Callable[[list[Window]], Tensor]) -> Iterator[Streamed]:
    for window, dropped in latest(windows):
        yield _streamed(window, values([window])[0], dropped)


def _streamed(window: Window, values: Tensor, dropped: int = 0) -> Streamed:
    picture = window.clip[(window.valid - 1) // 2]
    return Streamed(window.start, window.end, window.valid, values, picture, dropped)
