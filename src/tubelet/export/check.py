"""Whether an exported file computes what the model does, and how fast: it is run as its users run it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import torch

from tubelet.export.function import Exported
from tubelet.export.runners import RUNNERS, Runner

_ROUNDS = 5
TOLERANCE, TOLERANCE_HALF = 1e-5, 2e-2
"""The largest difference, as a share of the largest number of the output, or of 1 if that is larger."""


@dataclass(frozen=True)
class Checked:
    """difference: the largest, over all batches, as `TOLERANCE` counts it. batches: their sizes. milliseconds, eager:
    per clip, of the file and of the model, medians of alternating rounds with one clip.
    """

    difference: float
    batches: tuple[int, ...]
    milliseconds: float
    eager: float

    def __str__(self) -> str:
        sizes, threads = " and ".join(map(str, self.batches)), torch.get_num_threads()
        return (
            f"largest difference {self.difference:.1e} with batches of {sizes}; {self.milliseconds:.1f} ms per clip, "
            f"the model itself {self.eager:.1f} ms (CPU, {threads} thread{'s' * (threads > 1)})"
        )


def check(path: Path, function: Exported, reference: Exported, dynamic: bool, rounds: int = _ROUNDS) -> Checked:
    """Run the file beside `function` for the time, and beside `reference`, the same in float32, for the numbers.

    Raises ValueError if they differ by more than the tolerance of the type.
    """
    run = RUNNERS[path.suffix](path)
    batches = (1, 3) if dynamic else (1,)
    difference = max(relative_difference(run, reference, batch) for batch in batches)
    limit = TOLERANCE if function.dtype == torch.float32 else TOLERANCE_HALF
    if not difference <= limit:  # also if it is not a number
        raise ValueError(f"the exported file differs from the model by {difference:.1e}, more than {limit:.0e}")
    return Checked(difference, batches, *times(run, function, rounds))


@torch.no_grad()
def relative_difference(run: Runner, reference: Exported, batch: int) -> float:
    """On a random batch: the largest difference, as a share of the largest number, or of 1 if that is larger."""
    clip = reference.example(batch)
    ours, theirs = reference(clip), run(clip)
    if ours.shape != theirs.shape:
        raise ValueError(f"the exported file returns {list(theirs.shape)}, the model {list(ours.shape)}")
    return float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1.0))


@torch.no_grad()
def times(run: Runner, function: Exported, rounds: int = _ROUNDS) -> tuple[float, float]:
    """Milliseconds with one clip: of the file, of the model. The first round is dropped.

    With one thread it is processor time: the latency if nothing else runs on the machine.
    """
    clock = process_time if torch.get_num_threads() == 1 else perf_counter
    clip, found = function.example(1), []
    for _ in range(rounds + 1):
        started = clock()
        run(clip)
        between = clock()
        function(clip)
        found.append((1e3 * (between - started), 1e3 * (clock() - between)))
    file, eager = zip(*found[1:], strict=True)
    return median(file), median(eager)
