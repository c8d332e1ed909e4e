"""How cost grows: tiny curves, the table of speeds, and the hours of a recipe."""

from pathlib import Path

import pytest

from tubelet.bench import growth, processes
from tubelet.bench.growth import Point, draw, measure_growth
from tubelet.bench.recipes import VIDEOS, Recipe
from tubelet.bench.scale import Cost
from tubelet.bench.speeds import speed_of, speeds


def test_every_point_has_its_prediction(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(growth, "_measure", lambda device, encoder, at: (at["frames"] * at["resolution"], 3.0))
    monkeypatch.setattr(growth, "clips_per_s_of_workers", lambda folder, count: 10.0 * count)
    monkeypatch.setattr(growth, "clips_per_s_of_ranks", lambda count: 5.0)
    monkeypatch.setattr(growth, "cores", lambda: 3)
    found: list[Point] = []
    monkeypatch.setattr(growth, "draw", lambda points, *_: found.extend(points))
    measure_growth(tmp_path / "scale.png")
    steps = {(point.curve, point.x): point for point in found if point.gflop is not None}
    assert len(steps) == 16
    assert steps["frames", 16].predicted == 3.0
    assert steps["frames", 64].predicted == 0.75
    assert steps["resolution", 112].predicted == 6.0
    predicted = {(point.curve, point.x): point.predicted for point in found if point.gflop is None}
    assert predicted == {(curve, n): one * n for curve, one in (("workers", 10.0), ("ranks", 5.0)) for n in (1, 2, 3)}


@pytest.mark.slow
def test_a_point_is_measured() -> None:
    at = {"frames": 16, "resolution": 32, "ratio": 0.5, "batch": 2}
    gflop, clips_per_s = growth._measure("cpu", "vit_tiny", at)
    assert clips_per_s > 0
    assert gflop > 2 * growth._measure("cpu", "vit_tiny", {**at, "frames": 8})[0]  # attention grows with the square


def test_the_picture(tmp_path: Path) -> None:
    points = [Point("frames", 8, 2.0, 2.0, 1.0), Point("frames", 16, 0.9, 1.0, 2.0), Point("workers", 1, 5.0, 5.0)]
    draw(points, tmp_path / "scale.png", "here")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_processes_are_measured(tmp_path: Path) -> None:
    assert processes.clips_per_s_of_workers(tmp_path, 1) > 0
    assert processes.clips_per_s_of_ranks(2) > 0


@pytest.mark.parametrize(
    ("out", "device", "error"),
    [
        ("scale.pdf", "cpu", "must end in .png"),
        ("nowhere/scale.png", "cpu", "there is no directory nowhere"),
        ("scale.png", "tpu", "unknown device 'tpu', expected cpu or cuda"),
    ],
)
def test_what_cannot_be_drawn_is_refused_at_once(out: str, device: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        measure_growth(Path(out), device)


def test_speeds() -> None:
    for line in speeds():
        assert line.tflops > 0
        assert line.source.split(":")[0].split(",")[0] in ("measured", "published", "assumed")
    assert speed_of(None, "pretrain_base") == speeds()[0]
    assert speed_of("V100", "pretrain_large").tflops == 6.5  # that of another model
    with pytest.raises(ValueError, match="no speed of hardware 'H1000' has been measured: expected one of 'A100"):
        speed_of("H1000", "any")


def test_the_hours_of_a_recipe_by_hand() -> None:
    recipe = Recipe("x", "pretrain_base", clips=VIDEOS["kinetics400"] * 800, cost=Cost(1, 203e9, 1))
    assert recipe.hours(0.5 * 989) == pytest.approx(192e6 / 2436 / 3600, rel=1e-3)  # clips/s at half an H100's peak
