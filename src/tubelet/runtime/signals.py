"""The signals by which a cluster asks a run to stop: noted when they come, acted on at the end of a step.

SIGUSR1 comes before the time limit (`sbatch --signal=USR1@120`), SIGUSR2 in submitit's jobs, SIGTERM when a job is
preempted, SIGINT by Ctrl-C: once to stop, and once more to stop at once. Nothing heavy is imported here: train.py takes
note before its own imports, which take seconds.
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
"""What has come, in order."""
_replaced: dict[signal.Signals, Any] = {}
_TWICE = 1.0
"""Seconds between two Ctrl-C that are meant as two: torchrun hands its own on to processes that have had theirs."""
_since = 0.0
_process = 0


def note(*signals: signal.Signals) -> None:
    """From now on these are noted, and do nothing else."""
    global _process
    _process = os.getpid()
    for each in signals:
        _replaced.setdefault(each, signal.getsignal(each))
        signal.signal(each, _note)


@contextmanager
def all_noted() -> Iterator[None]:
    """While a run goes on; all is forgotten after it. Python allows no handlers outside of the main thread."""
    if current_thread() is main_thread():
        note(*WARNINGS, SIGTERM, SIGINT)
    try:
        yield
    finally:
        while _replaced:
            signal.signal(*_replaced.popitem())
        noted.clear()


def _note(number: int, _: Any) -> None:
    global _since
    if number == SIGINT and SIGINT in noted and time.monotonic() - _since > _TWICE:
        signal.signal(SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), SIGINT)
    if number == SIGINT and SIGINT not in noted:
        _since = time.monotonic()
        if os.getpid() == _process and os.environ.get("LOCAL_RANK", "0") == "0":  # not from the loaders' workers
            os.write(2, b"\nCtrl-C: stopping after this step; once more stops at once\n")
    noted.append(signal.Signals(number))
    if hasattr(signal, "SIGCHLD"):
        # SLURM may signal the loaders' workers as well: the death of one must not end what is still to be saved
        _replaced.setdefault(signal.SIGCHLD, signal.getsignal(signal.SIGCHLD))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
