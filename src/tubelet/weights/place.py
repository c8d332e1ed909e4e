"""Placing weights in a model, with a check of every name.

A missing or an unexpected name is an error that lists it. The exception is a change of task: then the parts of the old
task are dropped, and the parts of the new one start fresh (from random values). Position tables are resized if the
model has another clip size.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from tubelet.clip import ClipGrid
from tubelet.encoders.base import Encoder
from tubelet.layers.position import resize_table, sincos
from tubelet.models.base import VideoModel
from tubelet.weights.source import State

_POSITIONS = re.compile(r"(?:^|\.)(time_)?positions$")


@dataclass(frozen=True)
class Report:
    """Names of the weights that were taken from a file, dropped from it, or left fresh, as initialised."""

    taken: tuple[str, ...]
    dropped: tuple[str, ...]
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.taken)} tensors taken"]
        lines += [f"dropped  {name}" for name in self.dropped] + [f"fresh    {name}" for name in self.fresh]
        return "\n".join(lines)


def place(
    model: VideoModel | Encoder, state: State, old: ClipGrid, new: ClipGrid, name: str, new_task: bool = False
) -> Report:
    """Copy `state` into `model`. Position tables are resized from the clip size `old` to `new`.

    With `new_task` the model's `task_parts` may start fresh, and all weights outside the encoder may be dropped. Raises
    ValueError with the file and every key if any other weight is missing, unexpected or of another shape.
    """
    wanted = model.state_dict()
    fixed = {key for key, _ in model.named_buffers()}
    parts = {key.partition(".")[0] for key in state}
    state = dict(state)
    for key in fixed & wanted.keys():
        if key not in state and (
            "." not in key or key.partition(".")[0] in parts
        ):  # foreign files do not hold fixed tables
            state[key] = sincos(old.N, wanted[key].shape[-1])
    for key in [key for key in state if key in wanted and _POSITIONS.search(key)]:
        state[key] = _fit_positions(key, state[key], wanted[key], old, new, key in fixed)

    def misfits(key: str) -> bool:
        return key not in wanted or wanted[key].shape != state[key].shape

    def belongs_to_task(key: str) -> bool:
        return new_task and any(key == part or key.startswith(f"{part}.") for part in model.task_parts)

    def belongs_to_other_task(key: str) -> bool:
        return new_task and isinstance(model, VideoModel) and not key.startswith("encoder.")

    dropped = sorted(key for key in state if misfits(key) and (belongs_to_task(key) or belongs_to_other_task(key)))
    kept = {key: value for key, value in state.items() if key not in dropped}
    fresh = sorted(key for key in wanted if key not in kept and belongs_to_task(key))
    problems = [f"unexpected key {key}" for key in sorted(kept.keys() - wanted.keys())]
    problems += [f"missing key {key}" for key in sorted(wanted.keys() - kept.keys() - set(fresh))]
    problems += [
        f"{key} is {list(kept[key].shape)}, the model needs {list(wanted[key].shape)}"
        for key in sorted(kept.keys() & wanted.keys())
        if misfits(key)
    ]
    if problems:
        raise ValueError(f"the weights of {name} do not fit {type(model).__name__}:\n  " + "\n  ".join(problems))
    model.load_state_dict(kept, strict=False)
    return Report(tuple(sorted(kept)), tuple(dropped), tuple(fresh))


def _fit_positions(key: str, table: Tensor, wanted: Tensor, old: ClipGrid, new: ClipGrid, fixed: bool) -> Tensor:
    """The table [1,prefix+n,D] for clip size `old` -> the table for `new`. Class tokens have the first rows."""
    if key.endswith("time_positions"):
        sizes = (old.t, 1, 1), (new.t, 1, 1)
    elif 0 <= wanted.shape[1] - new.N <= 1:
        sizes = (old.t, old.h, old.w), (new.t, new.h, new.w)
    else:  # one row per patch of a frame
        sizes = (1, old.h, old.w), (1, new.h, new.w)
    rows = math.prod(sizes[0])
    prefix = table.shape[1] - rows
    if sizes[0] == sizes[1] or prefix not in (0, 1):  # it fits already, or it cannot fit and `place` reports it
        return table
    if fixed and torch.equal(table, sincos(rows, table.shape[-1])):
        # More time steps only lengthen a sine-cosine table over flattened tokens. Another frame size would shift all
        # later tokens, so the table is stretched in space.
        table = sincos(new.t * old.h * old.w, table.shape[-1])
        sizes = (new.t, old.h, old.w), sizes[1]
    resized = resize_table(table[:, prefix:].float(), *sizes).to(table.dtype)
    return torch.cat([table[:, :prefix], resized], dim=1)
