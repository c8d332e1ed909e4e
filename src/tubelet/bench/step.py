"""The time of one full training step of our models, beside its ceiling and beside transformers, in the same run.

The contenders alternate, after a warm-up that is not counted, and the ceiling is timed between them. So other work on
the machine slows all of them alike. The host waits for the device before and after each step. Medians are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch

from tubelet.bench.ceiling import Ceiling, wait
from tubelet.bench.contenders import a_clip, config_of, ours, theirs
from tubelet.bench.subjects import Step

_WARM_UP = 3


@dataclass(frozen=True)
class Timing:
    """Milliseconds. ours, compiled: a full step; products, attention: those of our step (not compiled), each timed
    alone; theirs, theirs_compiled: a full step of transformers. None: not measured.
    """

    system: str
    ours: float
    products: float
    attention: float
    compiled: float | None = None
    theirs: float | None = None
    theirs_compiled: float | None = None

    @property
    def ceiling(self) -> float:
        return self.products + self.attention

    @property
    def share(self) -> float:
        """Of a step that is spent in matrix products and attention, in (0, 1]."""
        return self.ceiling / self.ours

    @property
    def speed_up(self) -> float | None:
        """The time of transformers, not compiled, as a multiple of ours."""
        return None if self.theirs is None else self.theirs / self.ours


def bench(
    system: str,
    size: str = "base",
    batch: int = 8,
    image_size: int = 224,
    steps: int = 10,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
) -> Timing:
    """Time `steps` steps of a system; `compiled` adds a compiled model of each side. Raises ValueError if the system or
    size is unknown. Without transformers only ours are timed.
    """
    config = config_of(system, size, image_size)
    clip = a_clip(config, batch, device)
    mine = ours(system, config, clip, dtype)
    contenders: dict[str, Step | None] = {"ours": mine, "theirs": theirs(system, config, clip, dtype)}
    if compiled:
        contenders["compiled"] = ours(system, config, clip, dtype, compiled=True)
        contenders["theirs_compiled"] = theirs(system, config, clip, dtype, compiled=True)
    ceiling = Ceiling(mine.passes, device)
    runs = {name: each for name, each in contenders.items() if each is not None}
    times: dict[str, list[float]] = {name: [] for name in (*runs, "products", "attention")}
    for number in range(_WARM_UP + steps):
        for name, run in runs.items():
            seconds = _time(run, device)
            if number >= _WARM_UP:
                times[name].append(seconds)
        if number >= _WARM_UP:
            products, attention = ceiling.time()
            times["products"].append(products)
            times["attention"].append(attention)
    return Timing(system, **{name: 1000 * median(seconds) for name, seconds in times.items()})


def print_timings(timings: Iterable[Timing], compiled: bool = False) -> None:
    """Print a table, each row as soon as it is measured, and a line below it where transformers is missing."""
    head = f"{'milliseconds per step':28}{'tubelet':>9}{'ceiling':>9}{'products':>10}{'attention':>11}{'share':>7}"
    head += f"{'transformers':>14}{'ratio':>7}" + (f"{'compiled':>10}{'t. compiled':>13}" if compiled else "")
    print(head, flush=True)
    alone = True
    for row in timings:
        alone = alone and row.theirs is None
        line = f"{row.system:28}{row.ours:9.1f}{row.ceiling:9.1f}{row.products:10.1f}{row.attention:11.1f}"
        line += f"{row.share:7.0%}{_cell(row.theirs, 14)}{_cell(row.speed_up, 7, 2)}"
        print(line + (f"{_cell(row.compiled, 10)}{_cell(row.theirs_compiled, 13)}" if compiled else ""), flush=True)
    if alone:
        print("transformers is not installed: `pip install transformers` adds it to the comparison")


def _cell(value: float | None, width: int, digits: int = 1) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"


def _time(run: Callable[[], object], device: str) -> float:
    wait(device)
    start = perf_counter()
    run()
    wait(device)
    return perf_counter() - start
