"""The signals by which a cluster asks a run to stop: noted when they come, heeded at the end of a step.

SIGUSR1 comes before the time limit (`sbatch --signal=USR1@120`), SIGUSR2 in submitit's jobs, SIGTERM when a job is
preempted. Nothing heavy is imported here: train.py takes note before its own imports, which take seconds.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any

SIGTERM = signal.SIGTERM
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
noted: list[signal.Signals] = []
"""What has come, in order."""
_replaced: dict[signal.Signals, Any] = {}


def note(*signals: signal.Signals) -> None:
    """From now on these are noted, and do nothing else."""
    for each in signals:
        _replaced.setdefault(each, signal.getsignal(each))
        signal.signal(each, _note)


@contextmanager
def all_noted() -> Iterator[None]:
    """While a run goes on; all is forgotten after it. Python allows no handlers outside of the main thread."""
    if current_thread() is main_thread():
        note(*WARNINGS, SIGTERM)
    try:
        yield
    finally:
        while _replaced:
            signal.signal(*_replaced.popitem())
        noted.clear()


def _note(number: int, _: Any) -> None:
    noted.append(signal.Signals(number))
    # SLURM may signal the loaders' workers as well: the death of one must not end what is still to be saved
    _replaced.setdefault(signal.SIGCHLD, signal.getsignal(signal.SIGCHLD))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
