"""The results of a model for its card: which numbers belong to its weights, and how each of them was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tubelet.report.table import Run
from tubelet.runtime.facts import read_facts

_TYPES = {
    "top1": "accuracy", "top5": "accuracy", "mean_class": "accuracy", "knn_top1": "accuracy", "probe_top1": "accuracy",
    "map": "mean_average_precision", "r2": "r_squared", "mse": "mse", "mae": "mae",
}  # fmt: skip
"""The last word of a metric -> its type in a model-index. Other metrics, losses for example, compare no models."""


@dataclass(frozen=True)
class Result:
    """name: as it is logged, `val/top1`; type: of a model-index; split, data: the list of videos it was measured on."""

    name: str
    type: str
    value: float
    protocol: str
    split: str
    data: str


def results(run: Run, step: int | None = None) -> list[Result]:
    """What a run measured. step: optimizer steps of the weights; None: those of the end of the run."""
    values = dict(run.summary)
    for name, curve in run.curves.items():
        at = dict(curve)
        if name.startswith("val/") and step is not None:
            values.pop(name, None)
            # within training a row has the number of the step before; a validation after it, that of the next
            row = step if step in at else step - 1
            values |= {name: at[row]} if row in at else {}
    found = []
    for name, value in sorted(values.items()):
        split, _, metric = name.rpartition("/")
        kind = _TYPES.get(metric) or _TYPES.get(metric.partition("_")[2])  # `val_top1` of a probe
        if kind and split and isinstance(value, float):
            of = "test" if "test" in name else "val"
            found.append(Result(name, kind, value, protocol(name, run), of, data_name(run.config.get(f"data.{of}"))))
    return found


def protocol(name: str, run: Run) -> str:
    """How a metric was measured, in one sentence without a verb."""
    config, facts = run.config, read_facts(run.path)
    split, _, metric = name.rpartition("/")
    if split not in ("val", "test"):
        return f"probe `{split}` of the frozen encoder, in the same job"
    count = facts.get("videos", {}).get(split)
    videos = f"{count:,} videos" if count else "the videos"
    if split == "test":
        clips, crops = config.get("data.test_clips", 1), config.get("data.test_crops", 1)
        views = f"{clips} clips x {crops} crops of each of {videos}, their probabilities averaged"
        low, high = (run.summary.get(f"{name}_{end}") for end in ("low", "high"))
        return views if low is None else f"{views}; 95% interval {low:.4f} to {high:.4f}"
    if metric in ("knn_top1", "probe_top1"):
        most = config.get("callbacks.knn.max_clips")
        how = f"{config.get('callbacks.knn.k')} nearest neighbours" if metric == "knn_top1" else "a linear classifier"
        return (
            f"{how} among the frozen features of at most {most} training videos; the clip in the middle of each video"
        )
    return f"the clip in the middle of each of {videos}, centre crop"


def data_name(path: Any) -> str:
    """A list of videos by its last two names, `ucf101/test.csv`: the rest of a path is nobody's business."""
    if isinstance(path, dict | list) or path is None:
        return "not recorded" if path is None else "several lists"
    return "/".join(Path(str(path)).parts[-2:])


def hours(run: Run) -> float | None:
    """Hours of training: steps by the speed that was logged, so a run that was continued counts as a whole; without a
    logged speed, the seconds of a finished run.
    """
    clips = float(run.config.get("data.batch_size", 0)) * float(run.config.get("data.repeats", 1))
    seconds, before = 0.0, 0
    for step, speed in run.curves.get("clips_per_s", []):
        seconds, before = seconds + (step - before) * clips / max(speed, 1e-9), step
    whole = seconds or run.summary.get("seconds")
    return float(whole) / 3600 if whole else None
