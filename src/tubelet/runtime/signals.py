"""The signals by which a cluster or a user asks a run to stop. They are noted here, and handled at the end of a step.

SIGUSR1 comes before the time limit (`sbatch --signal=USR1@120`), SIGUSR2 in submitit's jobs, SIGTERM when a job is
preempted, and SIGINT from Ctrl-C: the first stops after the step, the second stops immediately. This file imports
nothing heavy, because train.py notes signals before its other imports, which take seconds.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any

SIGINT, SIGTERM = signal.SIGINT, signal.SIGTERM
WARNINGS = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))  # not on Windows
TRY_AGAIN = 75
"""Exit code of a run that was stopped and can be continued: EX_TEMPFAIL of sysexits.h."""
noted: list[signal.Signals] = []
"""The signals that have come, in order."""
_replaced: dict[signal.Signals, Any] = {}
_SECOND_PRESS = 1.0
"""A SIGINT counts as a second Ctrl-C after this many seconds. Sooner it is the same Ctrl-C: the terminal sends it to
all processes, and torchrun then forwards its own.
"""
_first_press = 0.0
_process = 0


def note(*signals: signal.Signals) -> None:
    """From now on these signals are noted and have no other effect."""
    global _process
    _process = os.getpid()
    for each in signals:
        _replaced.setdefault(each, signal.getsignal(each))
        signal.signal(each, _note)


@contextmanager
def all_noted() -> Iterator[None]:
    """Note all signals while a run lasts. Afterwards the old handlers are restored and the noted signals forgotten."""
    # Python allows signal handlers only in the main thread
    if current_thread() is main_thread():
        note(*WARNINGS, SIGTERM, SIGINT)
    try:
        yield
    finally:
        while _replaced:
            signal.signal(*_replaced.popitem())
        noted.clear()


def _note(number: int, _: Any) -> None:
    global _first_press
    if number == SIGINT and SIGINT in noted and time.monotonic() - _first_press > _SECOND_PRESS:
        signal.signal(SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), SIGINT)
    if number == SIGINT and SIGINT not in noted:
        _first_press = time.monotonic()
        if (
            os.getpid() == _process and os.environ.get("LOCAL_RANK", "0") == "0"
        ):  # only once, and not from the workers of the loaders
            os.write(2, b"\nCtrl-C: stopping after this step; once more stops at once\n")
    noted.append(signal.Signals(number))
    if hasattr(signal, "SIGCHLD"):
        # SLURM may signal the workers of the loaders, too. If one dies, the run must still be able to save.
        _replaced.setdefault(signal.SIGCHLD, signal.getsignal(signal.SIGCHLD))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
