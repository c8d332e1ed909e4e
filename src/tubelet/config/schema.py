"""What stands at the root of every config, and the error that refuses one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

T = TypeVar("T")


@dataclass
class Sweep:
    """What a point of a study does in the same job once it is trained, see tubelet.study."""

    probes: list[str] = field(default_factory=list)  # run in turn, each with weights= this run
    overrides: dict[str, list[str]] = field(default_factory=dict)  # probe -> its command line: experiment=..., key=...


@dataclass
class Root:
    """All keys a config has at its root. A group is a node with `_target_`; `logger`, `callbacks` are a dict of nodes.

    There is no `experiment` key: a file of that group writes to the root, and one that forgets its
    `# @package _global_` is refused instead of being ignored.
    """

    name: str = MISSING  # of the experiment: runs/<name>/<date_time>/
    seed: int = 0
    stage: str = "fit"  # fit | validate | test
    weights: str | None = None  # start from these: a run directory, a checkpoint, a directory or hub id, a .pth
    objective: str = "val/loss"  # the metric that a sweeper such as Optuna's is given
    resume: str | None = None  # null: a new run; auto: continue the newest equal one; or the path of a run
    sweep: Sweep = field(default_factory=Sweep)
    data: Any = MISSING
    masking: Any = MISSING  # null: nothing is hidden
    encoder: Any = MISSING
    decoder: Any = MISSING
    target: Any = MISSING
    preprocess: Any = MISSING
    model: Any = MISSING
    method: Any = MISSING
    optim: Any = MISSING
    trainer: Any = MISSING
    logger: Any = MISSING
    callbacks: Any = MISSING


ConfigStore.instance().store(name="root", node=Root)

GROUPS = tuple(f.name for f in fields(Root) if f.default is MISSING and f.name != "name")
COLLECTIONS = ("logger", "callbacks")  # a dict name -> node, null switches one off
NULLABLE = ("masking", "decoder", "target", "preprocess", *COLLECTIONS)  # what a model may do without


SUPPLIED = {
    "data": ("grid", "preprocess", "masking", "labels", "seed", "accumulate", "run_dir"),
    "masking": ("grid", "generator", "epoch"),
    "decoder": ("encoder", "target_dim"),
    "target": ("encoder", "preprocess"),
    "method": ("model", "model_config", "optim", "plan"),
    "trainer": ("run_dir", "callbacks", "loggers", "plan"),
}
"""Arguments that the program itself passes when it completes the partial node of a group: not for a config to set."""


def settable(group: str, parameters: Mapping[str, T]) -> dict[str, T]:
    """Those of the parameters of a group's callable that a config may set."""
    return {name: parameter for name, parameter in parameters.items() if name not in SUPPLIED.get(group, ())}


class ConfigError(ValueError):
    """A config that is refused: one line for each mistake, each beginning with its full key."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        head = [] if len(mistakes) == 1 else [f"the config has {len(mistakes)} mistakes"]
        super().__init__("\n  ".join(head + mistakes))


def unknown_key(key: str, known: Iterable[str]) -> str:
    """What to say about `key` where only `known` are possible."""
    known = list(known)
    if not known:
        return "unknown key (there is none to set)"
    close = difflib.get_close_matches(key, known, n=1)
    return f"unknown key (did you mean '{close[0]}'?)" if close else f"unknown key (there are: {', '.join(known)})"
