"""How fast machines train: the table speeds.csv beside this file, one line per hardware, model and precision.

The lines of a GPU come from `bash tests/gpu/check.sh`, which writes them. `clips_s` and `tflops` are those of
one device, for a whole training step; tflops = clips_s x counted operations of a clip.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("speeds.csv")


@dataclass(frozen=True)
class Speed:
    """model: a name of tubelet.bench.subjects, or "any". tflops: 10^12 operations per second."""

    hardware: str
    model: str
    precision: str
    tflops: float
    source: str


def speeds() -> list[Speed]:
    with FILE.open(newline="") as file:
        return [
            Speed(row["hardware"], row["model"], row["precision"], float(row["tflops"]), row["source"])
            for row in csv.DictReader(file)
        ]


def speed_of(hardware: str | None, model: str) -> Speed:
    """The speed of a hardware at a model: the fastest line of that model, or else the fastest of the hardware. None:
    the hardware of the first line. Raises ValueError for hardware that is not in the table.
    """
    table = speeds()
    hardware = table[0].hardware if hardware is None else hardware
    mine = [line for line in table if line.hardware == hardware]
    if not mine:
        names = ", ".join(f"'{name}'" for name in dict.fromkeys(line.hardware for line in table))
        raise ValueError(f"no speed of hardware '{hardware}' has been measured: expected one of {names}, or --tflops")
    return max(mine, key=lambda line: (line.model == model, line.tflops))
