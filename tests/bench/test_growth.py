"""How cost grows: tiny curves, the table of speeds, and the hours of a recipe."""

from pathlib import Path

import pytest

from tubelet.bench import growth, processes
from tubelet.bench.growth import Point, draw, measure_growth
from tubelet.bench.recipes import VIDEOS, Recipe
from tubelet.bench.scale import Cost
from tubelet.bench.speeds import speed_of, speeds


def test_steps_are_measured_beside_their_prediction(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(growth, "CURVES", {"frames": (8, 16), "batch": (1, 2)})
    monkeypatch.setattr(growth, "CENTRE", {"frames": 8, "resolution": 32, "ratio": 0.5, "batch": 1})
    monkeypatch.setattr(growth, "clips_per_s_of_workers", lambda folder, count: 10.0 * count)
    monkeypatch.setattr(growth, "clips_per_s_of_ranks", lambda count: 5.0)
    found: list[Point] = []
    monkeypatch.setattr(growth, "draw", lambda points, *_: found.extend(points))
    measure_growth(tmp_path / "scale.png", encoder="vit_tiny")
    steps = {(point.curve, point.x): point for point in found if point.gflop is not None}
    assert set(steps) == {("frames", 8), ("frames", 16), ("batch", 2)}  # the centre once
    centre, longer = steps["frames", 8], steps["frames", 16]
    assert centre.predicted == pytest.approx(centre.measured)
    assert longer.predicted / centre.predicted == pytest.approx(centre.gflop / longer.gflop)
    assert longer.gflop > 2 * centre.gflop  # attention grows with the square
    assert {point.curve for point in found} == {"frames", "batch", "workers", "ranks"}


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
    [("scale.pdf", "cpu", "must end in .png"), ("nowhere/scale.png", "cpu", "there is no directory nowhere")],
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
