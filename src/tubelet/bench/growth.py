"""How the cost of pretraining grows, measured one dimension at a time, beside what the count of operations predicts.

The centre is one clip of 16 x 224 x 224 with tube masking of 0.9. From there one of frames, resolution, mask ratio and
batch changes. The prediction takes the speed at the centre, in operations per second, for granted everywhere: a point
above it says that a machine computes this size worse. On a CPU a step runs on one thread, and its processor time is
measured, so other work on the machine does not count; on a GPU it is the time that passes. For workers and ranks
(processes of this machine) the prediction is that n of them, one per core at most, are n times as fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import torch

from tubelet import storage
from tubelet.bench.processes import clips_per_s_of_ranks, clips_per_s_of_workers
from tubelet.bench.scale import cost
from tubelet.bench.subjects import Step, check_device, draw_mask, loss_of
from tubelet.config.compose import build_model
from tubelet.data.worker import cores
from tubelet.masking import tube

CURVES: dict[str, tuple[float, ...]] = {
    "frames": (8, 16, 32, 64),
    "resolution": (112, 160, 224, 320),
    "ratio": (0.5, 0.75, 0.9, 0.95),
    "batch": (1, 2, 4, 8),
}
CENTRE = {"frames": 16, "resolution": 224, "ratio": 0.9, "batch": 1}
TURNS = 3


@dataclass(frozen=True)
class Point:
    """Clips per second: measured, and predicted. gflop: of one clip; None for workers and ranks."""

    curve: str
    x: float
    measured: float
    predicted: float
    gflop: float | None = None


def measure_growth(out: Path, device: str = "cpu", encoder: str = "vit_small") -> Path:
    """Measure all curves, print every point, and draw them to `out`. Raises ValueError if its name is not a .png."""
    if out.suffix != ".png":
        raise ValueError(f"--out must end in .png, got {out}")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no directory {out.parent}")
    check_device(device)
    print(f"{'':12}{'':>8}{'GFLOP/clip':>12}{'clips/s':>10}{'predicted':>11}{'ratio':>7}")
    points = []
    for point in [*_steps(device, encoder), *_processes()]:
        points.append(point)
    draw(points, out, f"{encoder} on {_name(device)}")
    return out


def _steps(device: str, encoder: str) -> Iterator[Point]:
    """The curves of a training step in bf16 autocast on a GPU, in float32 on a core of a CPU."""
    gflop, rate = _measure(device, encoder, CENTRE)  # measured once, and a point of every curve
    speed = gflop * rate
    for curve, values in CURVES.items():
        for x in values:
            at = (gflop, rate) if x == CENTRE[curve] else _measure(device, encoder, {**CENTRE, curve: x})
            yield _printed(Point(curve, x, at[1], speed / at[0], at[0]))


def _measure(device: str, encoder: str, at: dict[str, Any]) -> tuple[float, float]:
    """GFLOP of a clip, and clips per second of whole training steps, at one point."""
    model: Any = build_model(
        "experiment=pretrain_k400_base", f"encoder={encoder}", f"encoder.num_frames={at['frames']}",
        f"encoder.image_size={at['resolution']}",
    ).train()  # fmt: skip
    masking, clips = partial(tube, ratio=at["ratio"]), int(at["batch"]) * (16 if device == "cuda" else 1)
    gflop = cost(model, masking).flops / 1e9
    grid = model.grid
    clip = torch.randn(clips, model.encoder.in_channels, grid.frames, grid.height, grid.width, device=device)
    model.to(device)
    step = Step(
        model,
        loss_of(model, clip, draw_mask(model, clips, masking).to(device)),
        torch.bfloat16 if device == "cuda" else torch.float32,
    )
    clock, threads, seconds = (perf_counter if device == "cuda" else process_time), torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for turn in range(TURNS + 1):  # the first one makes AdamW's moments, and is dropped
            begun = clock()
            step().item()  # waits for the device
            if turn:
                seconds.append(clock() - begun)
    finally:
        torch.set_num_threads(threads)
    return gflop, clips / median(seconds)


def _processes() -> Iterator[Point]:
    """Workers of the loader on the demo videos, and ranks with a copy of a small model each."""
    counts = sorted({1, 2, 4, cores()} & set(range(1, cores() + 1)))
    with TemporaryDirectory() as folder:
        for curve, measure in (
            ("workers", partial(clips_per_s_of_workers, Path(folder))),
            ("ranks", clips_per_s_of_ranks),
        ):
            one: float | None = None
            for count in counts:
                measured = measure(count)
                one = one or measured
                yield _printed(Point(curve, count, measured, one * count))


def _printed(point: Point) -> Point:
    gflop = "" if point.gflop is None else f"{point.gflop:.1f}"
    print(
        f"{point.curve:12}{point.x:8g}{gflop:>12}{point.measured:10.3g}{point.predicted:11.3g}"
        f"{point.measured / point.predicted:7.2f}",
        flush=True,
    )
    return point


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"{cores()} cores"


def draw(points: list[Point], picture: Path, title: str) -> None:
    """One panel for each curve: seconds per clip, measured (dots) and predicted (line)."""
    from matplotlib.figure import Figure

    curves = list(dict.fromkeys(point.curve for point in points))
    figure = Figure(figsize=(10, 3 * -(-len(curves) // 3)), layout="constrained")
    for axes, curve in zip(figure.subplots(-(-len(curves) // 3), 3, squeeze=False).flat, curves, strict=False):
        mine = sorted((point for point in points if point.curve == curve), key=lambda point: point.x)
        xs = [point.x for point in mine]
        axes.plot(xs, [1 / point.predicted for point in mine], "-", label="predicted", linewidth=1.2)
        axes.plot(xs, [1 / point.measured for point in mine], "o", label="measured", markersize=4)
        axes.set(xlabel=curve, ylabel="seconds per clip", yscale="log", ylim=_limits(mine))
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
        axes.grid(alpha=0.3)
        axes.legend()
    for axes in list(figure.axes)[len(curves) :]:
        axes.set_axis_off()
    figure.suptitle(title)
    with storage.replacing(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _limits(points: list[Point]) -> tuple[float, float]:
    """At least one decade, so that noise does not look like growth."""
    values = [1 / rate for point in points for rate in (point.measured, point.predicted)]
    low, high = min(values) / 1.3, max(values) * 1.3
    middle = (low * high) ** 0.5
    return min(low, middle / 10**0.5), max(high, middle * 10**0.5)
