"""Jobs in processes of their own that are killed when they take too long: native decoders can loop without an end and
hold the interpreter's lock, or crash, and neither may take the others along.
"""

from __future__ import annotations

import itertools
import multiprocessing as mp
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

Report = Callable[[str], None]
"""What a job calls on entering its next stage, with the stage's name; the clock starts again."""


def heartbeat(report: Report, stage: str, seconds: float = 1.0) -> Callable[[], None]:
    """To be called at every little step: starts the clock of the stage again, every so many seconds."""
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= seconds:
            last = now
            report(stage)

    return beat


@dataclass(frozen=True)
class Killed:
    """What became of a job that did not come back: in which stage, and why."""

    stage: str
    reason: str


def check_main_is_guarded() -> None:
    """Raises RuntimeError in a process that a script's own call has started: it imports that script again, and would
    wait for ever for the call that waits for it.
    """
    if mp.parent_process() is None and mp.current_process().name != "MainProcess":  # it is still being started
        raise RuntimeError('a script that calls tubelet must do so below `if __name__ == "__main__":`')


def run_jobs(
    work: Callable[[Job, Report], Result], jobs: Iterable[Job], workers: int, limit: float
) -> Iterator[tuple[Job, Result | Killed]]:
    """(job, its result) as they finish. A process that stays in one stage for more than `limit` seconds is killed, and
    another takes its place. `work` must be importable by name; an exception in it is raised here.
    """
    check_main_is_guarded()
    if workers < 1 or limit <= 0:
        raise ValueError(f"workers must be at least 1 and the limit positive, got {workers} and {limit:g} seconds")
    team, waiting = _Team[Job, Result](work, limit), iter(jobs)
    try:
        for job in itertools.islice(waiting, workers):
            team.hire().start(job)
        while team.busy():
            worker, done, result = team.next_result()
            for job in itertools.islice(waiting, 1):
                worker.start(job)
            yield done, result
    finally:
        for worker in team.workers:
            worker.kill()


class _Worker(Generic[Job]):
    """One process and what it is doing; `since` is when its stage began, None before that and when idle."""

    def __init__(self, context: Any, work: Callable[[Job, Report], Any]) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.busy, self.stage = False, ""
        self.since: float | None = None

    def start(self, job: Job) -> None:
        self.job, self.busy, self.stage, self.since = job, True, "", None
        self.pipe.send(job)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class _Team(Generic[Job, Result]):
    def __init__(self, work: Callable[[Job, Report], Result], limit: float) -> None:
        # neither fork (decoders and progress bars hold threads) nor spawn (which imports torch again for every process)
        self.context = mp.get_context("forkserver")
        self.context.set_forkserver_preload(["tubelet.data.reader", "av"])  # the former has torch
        self.work, self.limit, self.workers = work, limit, list[_Worker[Job]]()

    def hire(self) -> _Worker[Job]:
        self.workers.append(_Worker(self.context, self.work))
        return self.workers[-1]

    def busy(self) -> list[_Worker[Job]]:
        return [worker for worker in self.workers if worker.busy]

    def next_result(self) -> tuple[_Worker[Job], Job, Result | Killed]:
        """The next job to end, well or not, and the worker that is free now."""
        while True:
            busy, now = self.busy(), time.monotonic()
            left = [worker.since + self.limit - now for worker in busy if worker.since is not None]
            ready = wait([worker.pipe for worker in busy], max(0.0, min(left)) if left else None)
            for worker in busy:
                if worker.pipe in ready:
                    try:
                        kind, value = worker.pipe.recv()
                    except (EOFError, ConnectionError):
                        worker.process.join()
                        return self._replace(worker, f"crashes its decoder ({_death(worker.process.exitcode)})")
                    if kind == "error":
                        raise value
                    if kind == "result":
                        worker.busy = False
                        return worker, worker.job, value
                    worker.stage, worker.since = value, time.monotonic()
                elif worker.since is not None and now - worker.since > self.limit:
                    return self._replace(worker, f"keeps its decoder busy for more than {self.limit:g} seconds")

    def _replace(self, worker: _Worker[Job], reason: str) -> tuple[_Worker[Job], Job, Killed]:
        worker.kill()
        self.workers.remove(worker)
        return self.hire(), worker.job, Killed(worker.stage, reason)


def _death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return signal.Signals(-exitcode).name
    return f"exit code {exitcode}"


def _serve(work: Callable[[Job, Report], Any], pipe: Connection) -> None:
    """The worker's life. Decoders write to stderr as they please, which would tear the progress bar: nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle, which then kills its workers
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(("stage", ""))  # only now does the clock run: a new process may take seconds to import torch
        try:
            result = work(job, lambda stage: pipe.send(("stage", stage)))
        except Exception as error:
            pipe.send(("error", error))
        else:
            pipe.send(("result", result))
