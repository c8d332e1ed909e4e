"""The hours that each published recipe of conf/experiment takes: its clips x counted operations / measured speed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tubelet.bench import WIDTH
from tubelet.bench.scale import Cost, cost
from tubelet.bench.speeds import speed_of
from tubelet.config.compose import compose, conf_directory
from tubelet.nodes import build

VIDEOS = {"kinetics400": 240_000, "ssv2": 168_913, "ucf101": 9_537, "hmdb51": 3_570}
"""Training videos of a data set; Kinetics-400 as it is commonly counted, since videos have disappeared."""
VIDEOMAE_V2 = 1_350_000
"""Videos of VideoMAEv2's list, which is no data set of its own: https://arxiv.org/abs/2303.16727"""


@dataclass(frozen=True)
class Recipe:
    """clips: of the whole recipe, repeats included. cost: of one."""

    name: str
    model: str
    clips: float
    cost: Cost

    def hours(self, tflops: float) -> float:
        """Hours of one device that sustains `tflops` x 10^12 operations per second."""
        return self.clips * self.cost.flops / (tflops * 1e12) / 3600


def recipes() -> list[Recipe]:
    """The published recipes with a known number of training videos. Those of the demo, of one's own videos, and of
    frozen encoders are left out.
    """
    found: list[Recipe] = []
    known: dict[str, Cost] = {}
    names = sorted(path.stem for path in (conf_directory() / "experiment").glob("*.yaml"))
    names = [name for name in names if name.startswith(("pretrain_", "finetune_")) and name != "finetune_small"]
    for name in track(names, "counting operations", transient=True):
        cfg = compose(f"experiment={name}")
        clips = _videos(name, cfg) * cfg.trainer.max_epochs * cfg.data.repeats
        found.append(Recipe(name, _subject(name), clips, _cost(cfg, known)))
    return found


def _videos(name: str, cfg: DictConfig) -> int:
    return VIDEOMAE_V2 if name.startswith("pretrain_v2") else VIDEOS[str(cfg.data.train).split("/")[-2]]


def _subject(name: str) -> str:
    """The model of tubelet.bench.subjects whose speed is closest: pretrain_base for pretrain_ssv2_base."""
    kind, *_, size = name.split("_")
    return f"{kind}_{size}"


def _cost(cfg: DictConfig, known: dict[str, Cost]) -> Cost:
    """Counted once for each model: recipes of several data sets share theirs."""
    node: dict[str, Any] = {key: OmegaConf.to_container(cfg[key], resolve=True) for key in ("model", "masking")}
    node["model"].pop("preprocess")
    if "num_classes" in node["model"]:
        node |= {"masking": None}  # a classifier sees everything, and its head costs nothing beside its encoder
        node["model"] |= {"num_classes": 400, "head_dropout": 0.0}
        node["model"]["encoder"]["drop_path"] = 0.0
    text = json.dumps(node, sort_keys=True)
    if text not in known:
        masking = None if node["masking"] is None else build(node["masking"])
        with torch.device("meta"):
            model = build(node["model"])
        known[text] = cost(model.train(), masking)
    return known[text]


def print_recipes(hardware: str | None, tflops: float | None, gpus: list[int]) -> None:
    """Print the hours of every recipe on some numbers of devices, each as fast as alone."""
    table = Table(title="hours of the published recipes", title_justify="left")
    for column in ("recipe", "M clips", "GFLOP/clip", "TFLOP/s", "GPU-hours", *(f"h on {n}" for n in gpus)):
        table.add_column(column, justify="left" if column == "recipe" else "right")
    for recipe in recipes():
        speed = speed_of(hardware, recipe.model).tflops if tflops is None else tflops
        hours = recipe.hours(speed)
        cells = (recipe.clips / 1e6, recipe.cost.flops / 1e9, speed, hours, *(hours / n for n in gpus))
        table.add_row(recipe.name, *(f"{cell:,.0f}" if cell >= 100 else f"{cell:.3g}" for cell in cells))
    Console(width=WIDTH).print(table)
