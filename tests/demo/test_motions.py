"""The demo videos move as their labels say, give nothing away in a single frame, and are a function of their seed."""

import csv
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tubelet.demo import motions as demo
from tubelet.demo import render as rendering
from tubelet.demo import video as shape
from tubelet.demo.motions import Motions
from tubelet.demo.render import render
from tubelet.videos.processes import run_jobs


def read(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("demo") / "motions", seed=3, train_per_class=2, val_per_class=1)


def test_files_are_what_the_manifest_says(rendered: Path) -> None:
    assert (rendered / "labels.txt").read_text().split() == list(Motions.labels)
    for split, per_class in {"train": 2, "val": 1}.items():
        with open(rendered / f"{split}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["path", "label", "num_frames", "fps", "height", "width"]
        assert sorted(int(row["label"]) for row in rows) == sorted(list(range(8)) * per_class)
        for row in rows:
            assert row["path"].startswith(f"{split}/{Motions.labels[int(row['label'])]}_")
            frames = read(rendered / row["path"])
            assert frames.shape == (int(row["num_frames"]), int(row["height"]), int(row["width"]), 3)
    with av.open(str(rendered / "val/left_0000.mp4")) as file:
        assert file.streams.video[0].codec_context.name == "h264"
        assert float(file.streams.video[0].average_rate) == shape.FPS


def test_file_holds_the_frames_that_were_drawn(rendered: Path) -> None:
    drawn, decoded = Motions(3, "val", "up", 0).frames(), read(rendered / "val/up_0000.mp4")
    assert np.abs(drawn.astype(int) - decoded).mean() < 4  # of 255: chroma at half size, and the encoder's loss


def test_same_seed_same_bytes(rendered: Path, tmp_path: Path) -> None:
    again = render(tmp_path / "again", seed=3, train_per_class=2, val_per_class=1)
    assert contents(again) == contents(rendered)
    other = render(tmp_path / "other", seed=4, train_per_class=1, val_per_class=1)
    fewer = render(tmp_path / "fewer", seed=3, train_per_class=1, val_per_class=1)
    name = "train/left_0000.mp4"
    assert (other / name).read_bytes() != (rendered / name).read_bytes()
    # a video does not depend on how many there are
    assert (fewer / name).read_bytes() == (rendered / name).read_bytes()


def test_complete_directory_is_used_as_it_is(rendered: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in rendered.rglob("*")}
    assert render(rendered, seed=3, train_per_class=2, val_per_class=1) == rendered
    assert {path: path.stat().st_mtime_ns for path in rendered.rglob("*")} == before


def test_never_touches_anything_else(rendered: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'"seed": 3.*"seed": 5'):
        render(rendered, seed=5, train_per_class=2, val_per_class=1)
    (tmp_path / "mine.mp4").write_bytes(b"precious")
    with pytest.raises(ValueError, match="not a demo data set"):
        render(tmp_path, train_per_class=1, val_per_class=1)
    assert contents(tmp_path) == {"mine.mp4": b"precious"}
    with pytest.raises(ValueError, match="train_per_class 0"):
        render(tmp_path / "none", train_per_class=0)


def test_interrupted_rendering_is_started_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Iterator[Any]:
        yield from itertools.islice(run_jobs(*arguments, **options), 5)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rendering, "run_jobs", interrupted)
        with pytest.raises(KeyboardInterrupt):
            render(tmp_path / "d", train_per_class=1, val_per_class=1)
    assert not (tmp_path / "d").exists()
    render(tmp_path / "d", train_per_class=1, val_per_class=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".d.lock", "d"]
    assert json.loads((tmp_path / "d/demo.json").read_text())["seed"] == 0


def test_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []

    def counted(work: Any, jobs: list[Any], *arguments: Any, **options: Any) -> Iterator[Any]:
        written.extend(jobs)
        return run_jobs(work, jobs, *arguments, **options)

    monkeypatch.setattr(rendering, "run_jobs", counted)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: render(tmp_path / "d", train_per_class=1, val_per_class=1), range(2)))
    assert len(written) == 16


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_about_it(tmp_path: Path) -> None:
    """Its processes import it, and so call `render` again: they waited for ever for the lock."""
    (tmp_path / "script.py").write_text(
        "from tubelet.demo.render import render\nrender('d', train_per_class=1, val_per_class=1)\n"
    )
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert 'must do so below `if __name__ == "__main__":`' in done.stderr


def measure(frames: np.ndarray) -> tuple[float, float, float, float]:
    """Signed steps of the object seen in the pixels: along x, along y, clockwise, in size (medians over time)."""
    brightness = frames.astype(float).mean(-1)
    inside = brightness > (brightness.min() + brightness.max()) / 2  # [T,H,W]
    centres, angles, areas = [], [], []
    for mask in inside:
        y, x = np.nonzero(mask)
        centre = [np.angle(np.exp(2j * np.pi * p / shape.SIZE).mean()) / (2 * np.pi) for p in (x, y)]  # circular mean
        dx, dy = ((p / shape.SIZE - c + 0.5) % 1 - 0.5 for p, c in zip((x, y), centre, strict=True))
        centres.append(centre)
        angles.append(0.5 * np.arctan2(2 * (dx * dy).mean(), (dx**2 - dy**2).mean()))  # of the long axis; y points down
        areas.append(mask.sum())
    step_x, step_y = np.median((np.diff(centres, axis=0) + 0.5) % 1 - 0.5, axis=0)
    turn = np.median((np.diff(angles) + np.pi / 2) % np.pi - np.pi / 2) / (2 * np.pi)
    return step_x, step_y, turn, np.median(np.diff(np.log(areas)))


@pytest.mark.parametrize(("column", "negative", "positive"), [(0, "left", "right"), (1, "up", "down")])
def test_moves_as_labelled(column: int, negative: str, positive: str) -> None:
    for action, sign in ((negative, -1), (positive, +1)):
        for index in range(5):
            step = measure(Motions(0, "train", action, index).frames())
            assert sign * step[column] * shape.FRAMES == pytest.approx(sum(demo.SPEED) / 2, abs=0.25)
            assert abs(step[1 - column]) < 0.002


def test_turns_as_labelled() -> None:
    for action, sign in (("counter-clockwise", -1), ("clockwise", +1)):
        turns = [measure(Motions(0, "train", action, index).frames())[2] for index in range(9)]
        assert sign * np.median(turns) * shape.FRAMES == pytest.approx(sum(demo.SPEED) / 2, abs=0.25)


def test_grows_as_labelled() -> None:
    for action, sign in (("shrinking", -1), ("growing", +1)):
        for index in range(5):
            assert sign * measure(Motions(0, "train", action, index).frames())[3] > 0.01


def test_no_single_frame_gives_the_action_away() -> None:
    """Neither nearest neighbours nor a linear model tell the action from the pose in one frame, random or the first."""
    rng = np.random.default_rng(0)
    n = 250
    videos = [Motions(0, "train", action, index) for index, action in itertools.product(range(2 * n), Motions.labels)]
    labels = np.tile(np.arange(8), 2 * n)
    poses = np.stack([video.poses() for video in videos])  # [videos,T,4]
    assert poses.min() >= 0
    assert poses.max() < 1
    half = 8 * n
    for frame in (np.zeros(2 * half, int), rng.integers(shape.FRAMES, size=2 * half)):
        turns = 2 * np.pi * poses[np.arange(2 * half), frame]
        features = np.concatenate([np.cos(turns), np.sin(turns), turns, np.ones((2 * half, 1))], axis=1)
        distance = ((features[half:, None] - features[None, :half]) ** 2).sum(-1)
        votes = labels[:half][np.argsort(distance, axis=1)[:, :10]]
        neighbours = np.array([np.bincount(row, minlength=8).argmax() for row in votes])
        weights = np.linalg.lstsq(features[:half], np.eye(8)[labels[:half]], rcond=None)[0]
        linear = (features[half:] @ weights).argmax(1)
        for guess in (neighbours, linear):  # chance 0.125, its standard deviation here 0.0074
            assert (guess == labels[half:]).mean() < 0.125 + 3 * 0.0074


def test_splits_share_no_object_and_no_background() -> None:
    first_numbers = [
        Motions(0, split, "left", 0).rng(kind, i).integers(2**63)
        for split, kind in itertools.product(("train", "val"), ("object", "background"))
        for i in range(demo.OBJECTS[split])
    ]
    assert len(set(first_numbers)) == len(first_numbers)
