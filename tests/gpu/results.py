"""The stream of results that the parts of the check write, one JSON object a line, as they come."""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

NEEDS_CUDA = "needs cuda"
NO_TIME = "no time left"


@dataclass
class Results:
    """What a part knows of its task, and where it writes.

    A row is {part, check, ok, note, ...numbers}. ok: true, false, or null if there is nothing to be right or wrong
    about, or if it could not be run here (the note then says why).
    """

    part: str
    file: Path
    seconds: float
    device: str
    tiny: bool
    begun: float = field(default_factory=perf_counter)

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    @property
    def left(self) -> float:
        return self.seconds - (perf_counter() - self.begun)

    def add(self, check: str, ok: bool | None = None, note: str = "", **numbers: Any) -> None:
        row = {"part": self.part, "check": check, "ok": ok, "note": note, **numbers}
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        mark = {True: "ok", False: "FAILED", None: "--"}[ok]
        shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items() if isinstance(value, int | float))
        print(f"{perf_counter() - self.begun:6.1f} s  {mark:7} {check}  {shown}  {note}", flush=True)

    def attempt(self, check: str, run: Callable[[], Any], needs: float = 0.0, cuda: bool = False) -> Any:
        """`run()`, if `needs` seconds are left. What it raises becomes a failed row, and None is returned."""
        if cuda and not self.cuda:
            return self.add(check, note=NEEDS_CUDA)
        if self.left < needs:
            return self.add(check, note=NO_TIME)
        try:
            return run()
        except Exception as error:
            traceback.print_exc()
            return self.add(check, False, f"{type(error).__name__}: {error}"[:500])


def read(file: Path) -> list[dict[str, Any]]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]  # the last may be half a line


def from_command_line(part: str) -> Results:
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    return Results(part, given.file, given.seconds, given.device, given.tiny)
