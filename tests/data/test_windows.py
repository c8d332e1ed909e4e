"""Windows of a video that is decoded once equal the clips that `load_clip` cuts out of it one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import kinds
import pytest
import torch
from PIL import Image

from small_videos import video_frame
from tubelet.data.load_clip import load_clip
from tubelet.data.manifest import Record
from tubelet.data.reader import VideoError
from tubelet.data.sampling import Sampling
from tubelet.data.transforms import Preprocess
from tubelet.data.windows import Moment, VideoWindows, cut, window_sampling
from tubelet.encoders.vit import VideoViT

SIZE = (16, 16)


def numbered(count: int) -> Iterator[Moment]:
    for number in range(count):
        yield Moment(number / 10, torch.full((1, 1, 1), number))
    yield Moment(count / 10, torch.full((1, 1, 1), 99), end=True)


@pytest.mark.parametrize(
    ("count", "window", "stride", "expected"),
    [
        (8, 4, 4, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (9, 4, 4, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 99, 99, 99]]),
        (9, 4, 2, [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 99]]),
        (3, 4, 1, [[0, 1, 2, 99]]),
        (1, 4, 4, [[0, 99, 99, 99]]),
        (4, 4, 1, [[0, 1, 2, 3]]),
        (7, 2, 5, [[0, 1], [5, 6]]),
        (6, 2, 5, [[0, 1], [5, 99]]),
        (5, 2, 5, [[0, 1]]),
    ],
)
def test_every_frame_is_in_a_window_and_the_last_is_padded(
    count: int, window: int, stride: int, expected: list[list[int]]
) -> None:
    found = list(cut(numbered(count), window, stride))
    assert [each.clip.flatten().tolist() for each in found] == expected
    assert [each.valid for each in found] == [sum(n != 99 for n in clip) for clip in expected]
    for each, clip in zip(found, expected, strict=True):
        assert each.start == clip[0] / 10
        assert each.end == pytest.approx((clip[0] + each.valid) / 10)


def test_a_window_needs_no_frame_behind_the_next() -> None:
    """However long the video is, only one window is held."""
    asked = numbered(1000)
    next(cut(asked, 4, 4))
    assert next(asked).time == 0.5


@pytest.fixture
def model() -> VideoViT:
    return VideoViT(image_size=16, num_frames=4, patch_size=8, dim=24, depth=1, num_heads=2)


def assert_as_loaded(video: Path, model: VideoViT, preprocess: Preprocess, stride: int, threads: int = 1) -> None:
    model.preprocess = preprocess
    windows = list(VideoWindows(video, preprocess.frames(), preprocess.shrinker(SIZE), 4, stride, threads))
    for window in windows:
        clip = preprocess.normalise(window.clip.permute(3, 0, 1, 2)[None])
        assert torch.equal(clip, load_clip(video, model, start=window.start)), window.start
    if len(windows) == 1:
        assert torch.equal(clip, load_clip(video, model))


@pytest.mark.parametrize("sampling", [{"stride": 2}, {"stride": 3}, {"fps": 10}, {"fps": 30}, {"fps": 7.5}])
def test_windows_equal_clips(videos: Path, model: VideoViT, sampling: dict[str, int]) -> None:
    assert_as_loaded(videos.parent / "0.mp4", model, Preprocess(**sampling), stride=3, threads=2)
    assert_as_loaded(videos.parent / "5.mp4", model, Preprocess(**sampling), stride=4)  # shorter than a clip


def test_a_variable_frame_rate(tmp_path: Path, model: VideoViT) -> None:
    times = [round(40 * n if n < 30 else 1200 + 80 * (n - 30)) for n in range(kinds.FRAMES)]
    video = kinds.encode(tmp_path / "vfr.mp4", "libx264", kinds.B, times=times)
    assert_as_loaded(video, model, Preprocess(fps=6), stride=3)
    windows = VideoWindows(video, Sampling(stride=10), Preprocess().shrinker(SIZE), 2, 2)
    found = [seconds for window in windows for seconds in (window.start, window.end)]
    assert found == pytest.approx([0, 0.8, 0.8, 2, 2, 3.6], abs=0.05)
    assert windows.num_frames == 60


def test_a_segment_and_a_directory_of_images(videos: Path, tmp_path: Path) -> None:
    shrink = Preprocess().shrinker(SIZE)
    path = str(videos.parent / "0.mp4")
    for segment in ({"start_frame": 12, "end_frame": 24}, {"start": 0.5, "end": 1.0}):
        windows = VideoWindows(Record(path, **segment), Sampling(stride=2), shrink, 4, 4)
        found = list(windows)
        assert [window.start for window in found] == pytest.approx([0.5, 20 / 24])
        assert [window.valid for window in found] == [4, 2]
        assert windows.duration == pytest.approx(1.0)
    for number in range(6):
        Image.fromarray(video_frame(0, number)).save(tmp_path / f"{number}.png")
    (window,) = VideoWindows(tmp_path, Sampling(stride=2), shrink, 4, 4)
    assert window.valid == 3
    assert math.isnan(window.start)
    timed = list(VideoWindows(Record(str(tmp_path), fps=3.0), Sampling(stride=2), shrink, 2, 2))
    assert [w.end for w in timed] == pytest.approx([4 / 3, 2])


def test_what_cannot_be_cut_is_refused(videos: Path, tmp_path: Path, model: VideoViT) -> None:
    trained = Sampling("segments")
    with pytest.raises(ValueError, match="trained on segments"):
        window_sampling(trained)
    with pytest.raises(ValueError, match="frame stride 2 and 5 frames per second cannot both"):
        window_sampling(trained, 2, 5)
    with pytest.raises(ValueError, match="frame stride must be at least 1, got 0"):
        window_sampling(trained, 0)
    assert window_sampling(trained, 2) == Sampling("dense", 2)
    assert window_sampling(trained, None, 5) == Sampling("dense", fps=5)
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        list(cut(numbered(3), 4, 0))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    shrink = Preprocess().shrinker(SIZE)
    for record in (Record(str(tmp_path / "bad.mp4")), Record("x.mp4", status="unreadable"), Record("no.mp4")):
        with pytest.raises(VideoError, match=r"(bad|x|no)\.mp4: "):
            list(VideoWindows(record, Sampling(), shrink, 4, 4))
    model.preprocess = Preprocess()
    with pytest.raises(VideoError, match="has no frame from second 9"):
        load_clip(videos.parent / "0.mp4", model, start=9)
