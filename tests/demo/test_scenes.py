"""Every scene moves as its labels say, gives nothing away in a single frame, and is a function of its seed."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from tubelet.data.manifest import Manifest
from tubelet.demo import time
from tubelet.demo.camera import CameraMotions
from tubelet.demo.few_labels import demo
from tubelet.demo.render import SCENES, render
from tubelet.demo.scenes import CLASSES
from tubelet.demo.small import SmallObjects
from tubelet.demo.time import TimeChanges, check_sources
from tubelet.demo.video import FRAMES, SIZE, Video, write_video


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Three "real" videos."""
    folder = tmp_path_factory.mktemp("sources")
    for index, action in enumerate(("pan-left", "zoom-in", "shake-sideways")):
        parts = [CameraMotions(5, "train", action, 4 * index + part).frames() for part in range(4)]
        write_video(folder / f"{index}.mp4", np.concatenate(parts))
    return tuple(str(folder / f"{index}.mp4") for index in range(3))


def a_video(scene: str, action: str, index: int, sources: tuple[str, ...], split: str = "train") -> Video:
    kind = SCENES[scene]
    return kind(0, split, action, index, **({"sources": sources} if kind is TimeChanges else {}))


def test_a_config_knows_the_scenes() -> None:
    assert {scene: len(kind.labels) for scene, kind in SCENES.items()} == CLASSES


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_a_scene_is_a_function_of_its_seed(scene: str, tmp_path: Path, sources: tuple[str, ...]) -> None:
    kind = SCENES[scene]
    demo(tmp_path / "a", 1, 0, seed=1, train_per_class=1, val_per_class=1, scene=scene, sources=sources)
    render(tmp_path / "b", seed=1, train_per_class=1, val_per_class=1, scene=scene, sources=sources)
    found = Manifest.read(tmp_path / "a/train_1_0.csv")
    assert found.class_names() == list(kind.labels)
    assert len(found) == found.num_classes == len(kind.labels)
    for file in (tmp_path / "b").rglob("*.mp4"):
        assert file.read_bytes() == (tmp_path / "a" / file.relative_to(tmp_path / "b")).read_bytes()
    frames = a_video(scene, kind.labels[0], 0, sources).frames()
    assert (frames.shape, frames.dtype) == ((FRAMES, SIZE, SIZE, 3), np.uint8)
    # the splits share no texture and no source
    other = a_video(scene, kind.labels[0], 0, sources, "val").frames()
    assert np.abs(frames[0].astype(int) - other[0]).mean() > 5


def test_small_objects_move_as_labelled() -> None:
    for action, index in itertools.product(SmallObjects.labels, range(3)):
        path = SmallObjects(0, "train", action, index).path_of_object()
        steps = (np.diff(path, axis=0) + 0.5) % 1.0 - 0.5  # [T-1,2]
        turning = steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]  # y points down: clockwise is positive
        if action in ("left", "right", "up", "down"):
            along, sign = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}[action]
            assert (sign * steps[:, along] > 0).all()
            assert np.abs(steps[:, 1 - along]).max() < 1e-9
        else:
            assert ((turning > 0) == (action == "clockwise")).all()


def test_only_a_small_part_of_a_small_scene_ever_changes() -> None:
    frames = SmallObjects(0, "train", "left", 0).frames().astype(int)
    changed = (np.abs(frames[1:] - frames[:-1]).max(-1) > 40).mean()  # the object, where it was and where it is
    assert 0.005 < changed < 0.13


def test_the_camera_moves_as_labelled() -> None:
    for action, index in itertools.product(CameraMotions.labels, range(3)):
        x, y, octave = np.diff(CameraMotions(0, "train", action, index).camera(), axis=0).T
        still = {"pan": octave, "zoom": np.abs(x) + np.abs(y), "shake": octave}[action.split("-")[0]]
        assert np.abs(still).max() < 1e-9
    pan = CameraMotions(0, "train", "pan-right", 0)
    speed = np.diff(pan.camera()[:, 0]).mean() * SIZE  # pixels a frame: what is seen moves to the left
    before, after = (frame.astype(float).mean(-1) for frame in pan.frames()[:2])
    shifts = [np.abs(before[:, 8 + shift : 72 + shift] - after[:, 8:72]).mean() for shift in range(8)]
    assert abs(int(np.argmin(shifts)) - speed) < 1


def test_time_changes_show_the_same_frames_in_another_order(sources: tuple[str, ...]) -> None:
    videos = {action: TimeChanges(0, "train", action, 0, sources) for action in TimeChanges.labels}
    whole = videos["forward"].frames()
    orders = {
        "backward": range(FRAMES - 1, -1, -1),
        "halves-exchanged": [(frame + FRAMES // 2) % FRAMES for frame in range(FRAMES)],
        "slow": [frame // 2 + FRAMES // 4 for frame in range(FRAMES)],
    }
    for action, order in orders.items():
        same = TimeChanges(0, "train", action, 0, sources)
        object.__setattr__(same, "own", videos["forward"].own)  # cut from the same place
        assert np.array_equal(same.frames(), whole[list(order)])


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["small", "camera", "time"])
def test_no_single_frame_gives_the_class_away(scene: str, sources: tuple[str, ...]) -> None:
    """Trained on single frames, neither nearest neighbours nor a linear model do better than chance: on the pixels, nor
    on how strong each spatial frequency is, which knows the scale."""
    labels, n = SCENES[scene].labels, 80
    rng = np.random.default_rng(0)
    inputs, classes = [], []
    for index, (number, action) in itertools.product(range(n), enumerate(labels)):
        frame = a_video(scene, action, index, sources).frames()[rng.integers(FRAMES)].astype(float).mean(-1)
        small = frame.reshape(16, SIZE // 16, 16, SIZE // 16).mean((1, 3)).ravel()
        inputs.append(np.concatenate([small / 255, np.log1p(np.abs(np.fft.rfft2(frame))[:16, :16]).ravel() / 10]))
        classes.append(number)
    x, y, half = np.stack(inputs), np.array(classes), n * len(labels) // 2
    chance = 1 / len(labels)
    tolerance = 3 * (chance * (1 - chance) / half) ** 0.5
    for part in (x[:, :256], x[:, 256:]):
        part = (part - part.mean(0)) / (part.std(0) + 1e-6)
        distance = ((part[half:, None, :64] - part[None, :half, :64]) ** 2).sum(-1)
        votes = y[:half][np.argsort(distance, axis=1)[:, :10]]
        neighbours = np.array([np.bincount(row, minlength=len(labels)).argmax() for row in votes])
        kernel = part[:half] @ part[:half].T + 100 * np.eye(half)
        linear = (part[half:] @ part[:half].T @ np.linalg.solve(kernel, np.eye(len(labels))[y[:half]])).argmax(1)
        for guess in (neighbours, linear):
            assert (guess == y[half:]).mean() < chance + tolerance


def test_what_cannot_be_rendered_is_said(
    tmp_path: Path, sources: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"data\.scene must be one of motions, small, camera, time, got 'smal'"):
        render(tmp_path / "a", scene="smal")
    with pytest.raises(ValueError, match=r"there is no .*none\.mp4"):
        check_sources(["none.mp4"])
    monkeypatch.setattr(time, "PACKAGED", {})
    with pytest.raises(ValueError, match="at least 3 real videos, and found 0"):
        render(tmp_path / "a", scene="time")
    with pytest.raises(ValueError, match="at least 3 real videos, and found 2"):
        check_sources(sources[:2])
    assert not (tmp_path / "a").exists()
