"""Parts of untrimmed videos, clips by time from a variable frame rate, and frames shrunk while they are decoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from kinds import KINDS, VARIABLE
from PIL import Image

from tubelet.clip import ClipGrid
from tubelet.data.dataset import EvaluationVideos, TrainingVideos
from tubelet.data.manifest import Manifest
from tubelet.data.reader import available_readers, read_clip, read_frames
from tubelet.data.sampling import Sampling
from tubelet.data.transforms import resize_views, view_shrinker
from tubelet.videos.encode import Settings
from tubelet.videos.shards import merge
from tubelet.videos.transcode import transcode
from tubelet.videos.verify import verify

GRID = ClipGrid(frames=4, height=32, width=32, tubelet=2, patch=8)


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The frames that are asked for."""
    calls: list[list[int]] = []

    def spy(path: str, choose: Callable, reader: str, shrink: Callable | None = None) -> torch.Tensor:
        return read_clip(path, lambda video: calls.append(list(choose(video))) or calls[-1], reader, shrink)

    monkeypatch.setattr("tubelet.data.dataset.read_clip", spy)
    return calls


def test_training_and_evaluation_stay_within_the_segment(videos: Path, tmp_path: Path, chosen: list) -> None:
    lines = (
        f"path,label,start,end\n{videos.parent}/0.mp4,0,0.5,1.0\n{videos.parent}/0.mp4,1,1.25,\n"  # 24 fps, 40 frames
    )
    (tmp_path / "s.csv").write_text(lines)
    manifest = Manifest.read(tmp_path / "s.csv")
    training = TrainingVideos(manifest, GRID, Sampling(stride=2), seed=0)
    for epoch in range(20):
        training[epoch, 0]
    assert min(min(clip) for clip in chosen) == 12
    assert max(max(clip) for clip in chosen) == 23
    chosen.clear()
    evaluation = EvaluationVideos(manifest, GRID, Sampling(stride=2), seed=0, clips=2)
    assert [evaluation[0, i].label for i in range(2)] == [0, 1]
    assert chosen == [[12, 14, 16, 18, 17, 19, 21, 23], [30, 32, 34, 36, 33, 35, 37, 39]]


def test_segments_pass_through_verify_and_merge(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = videos.parent / "0.mp4"
    (tmp_path / "s.csv").write_text(f"path,start,end\n{file},0,1\n{file},1,\n{file},5,6\n")
    assert verify(tmp_path / "s.csv", tmp_path / "v.csv", workers=1) == 1
    assert "has no frame from second 5 to 6: its 40 frames end at 1.625" in capsys.readouterr().out
    verified = Manifest.read(tmp_path / "v.csv")
    records = [verified.record(i) for i in range(3)]
    assert [(r.start, r.end, r.num_frames) for r in records] == [(0, 1, 40), (1, None, 40), (5, 6, 40)]
    assert [r.status == "ok" for r in records] == [True, True, False]
    merge([tmp_path / "v.csv", tmp_path / "s.csv"], tmp_path / "m.csv")
    assert len(Manifest.read(tmp_path / "m.csv")) == 3


def test_a_frame_rate_on_a_variable_one_goes_by_the_clock(tmp_path: Path, chosen: list) -> None:
    file = KINDS["mp4, H.264, variable frame rate"](tmp_path)
    manifest = Manifest.from_columns(tmp_path, {"path": [str(file)]})
    EvaluationVideos(manifest, GRID, Sampling(fps=5.0), seed=0, clips=2)[0, 0]
    first = [VARIABLE[number] / 1000 for number in chosen[0][:4]]
    assert first == [0.0, 0.175, 0.36, 0.6]  # what is on show at 0, 0.2, 0.4 and 0.6 s


@pytest.mark.parametrize("reader", available_readers())
def test_frames_are_shrunk_while_decoding_to_the_same_pixels(videos: Path, tmp_path: Path, reader: str) -> None:
    for number in range(20):
        image = np.random.default_rng(number).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    numbers = [30, *range(0, 40, 2), 3, 3]
    for path, wanted in ((videos.parent / "1.mp4", numbers), (tmp_path, [n // 2 for n in numbers])):
        whole = resize_views(read_frames(path, wanted, reader), (32, 32), 40, 3)
        shrunk = read_clip(path, lambda video, wanted=wanted: wanted, reader, view_shrinker((32, 32), 40, 3))
        assert torch.equal(shrunk, torch.stack(whole, dim=1))


@pytest.mark.parametrize("reader", available_readers())
def test_few_frames_of_their_own_size_are_held(tmp_path: Path, reader: str) -> None:
    with av.open(str(tmp_path / "large.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = 480, 640, "yuv420p"
        for _ in range(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((480, 640, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    held: list[int] = []

    def shrink(frames: torch.Tensor) -> torch.Tensor:
        held.append(len(frames))
        return frames[:, :8, :8]

    assert read_clip(tmp_path / "large.mp4", lambda video: range(40), reader, shrink).shape == (40, 8, 8, 3)
    assert max(held) <= 8


def test_segments_in_frames(videos: Path, tmp_path: Path, chosen: list) -> None:
    file = videos.parent / "0.mp4"  # 24 fps, 40 frames
    (tmp_path / "s.csv").write_text(f"path,label,start_frame,end_frame\n{file},0,12,24\n{file},1,30,\n{file},1,,99\n")
    manifest = Manifest.read(tmp_path / "s.csv")
    evaluation = EvaluationVideos(manifest, GRID, Sampling(stride=2), seed=0, clips=2)
    for i in range(3):
        evaluation[0, i]
    assert chosen[0] == [12, 14, 16, 18, 17, 19, 21, 23]  # as from second 0.5 to 1
    assert chosen[1] == [30, 32, 34, 36, 33, 35, 37, 39]
    assert max(chosen[2]) == 39
    verify(tmp_path / "s.csv", tmp_path / "v.csv", workers=1)
    transcode(tmp_path / "v.csv", tmp_path / "new", Settings(short_side=32, fps=12), workers=1)
    new = Manifest.read(tmp_path / "new" / "v.csv")
    assert [new.record(i).segment for i in range(2)] == [(0.5, 1.0, None, None), (1.25, None, None, None)]
    with pytest.raises(ValueError, match=r"0\.mp4: another --fps needs the frame rate of this segment"):
        transcode(tmp_path / "s.csv", tmp_path / "new2", Settings(short_side=32, fps=12), workers=1)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("1,,5,", "in seconds .start, end. or in frames, not in both"),
        (",,9,3", "end_frame must lie behind start_frame"),
    ],
)
def test_segments_that_contradict_themselves(tmp_path: Path, cells: str, message: str) -> None:
    (tmp_path / "s.csv").write_text(f"path,start,end,start_frame,end_frame\na.mp4,{cells}\n")
    with pytest.raises(ValueError, match=f"line 2: .*{message}"):
        Manifest.read(tmp_path / "s.csv")
