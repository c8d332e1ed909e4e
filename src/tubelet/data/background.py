"""Decoding in threads while the model computes. FFmpeg and torch let go of Python's lock, so threads run side by side;
unlike processes they start at once, and hand over pixels without copying them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, Full, Queue
from typing import Any, Generic, TypeVar

import torch

from tubelet.data.reader import VideoError

T = TypeVar("T")
_POLL = 0.1  # seconds after which a waiting thread looks whether it is still needed


class Failed(Generic[T]):
    """In the place of an item: the error that ended a job."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def in_threads(
    jobs: Sequence[Callable[[], Iterator[T]]], threads: int, room: int
) -> Iterator[tuple[int, T | VideoError | None]]:
    """(number of the job, item) as they come, of `threads` jobs at a time, and (number, None) when a job is done.

    A VideoError ends its job alone, and takes the place of None; any other error is raised here. At most `room` items
    wait to be fetched. Whoever stops early closes the iterator, and the threads end.
    """
    queue: Queue[tuple[int, Any]] = Queue(room)
    stop, left, lock = threading.Event(), iter(range(len(jobs))), threading.Lock()

    def work() -> None:
        torch.set_num_threads(1)  # of this thread: its pictures are small, and waiting helpers would take cores
        while not stop.is_set():
            with lock:
                job = next(left, None)
            if job is None:
                return
            for item in _until_failure(jobs[job]):
                if not _put(queue, (job, item), stop):
                    return

    own = torch.get_num_threads()
    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, len(jobs)))]
    try:
        for worker in workers:
            worker.start()
        done = 0
        while done < len(jobs):
            job, item = queue.get()
            if isinstance(item, Failed):
                if not isinstance(item.error, VideoError):
                    raise item.error
                item = item.error
            done += item is None or isinstance(item, VideoError)
            yield job, item
    finally:
        stop.set()
        for worker in workers:
            worker.join(timeout=5)
        torch.set_num_threads(own)  # what threads that start later take as their own


def latest(items: Callable[[], Iterator[T]], room: int = 2) -> Iterator[tuple[T, int]]:
    """Every item of a source that does not wait, and how many were dropped in all so far. `room` items are kept until
    they are fetched; when another comes, the oldest of them is dropped.
    """
    queue: Queue[tuple[Any, int]] = Queue(room)
    stop = threading.Event()

    def work() -> None:
        torch.set_num_threads(1)
        dropped = 0
        for item in _until_failure(items):
            while not stop.is_set():
                try:
                    queue.put_nowait((item, dropped))
                    break
                except Full:
                    if item is None or isinstance(item, Failed):  # the end waits for its turn
                        _put(queue, (item, dropped), stop)
                        break
                    try:
                        queue.get_nowait()
                        dropped += 1
                    except Empty:
                        pass
            if stop.is_set():
                return

    own = torch.get_num_threads()
    threading.Thread(target=work, daemon=True).start()  # not waited for: it may hang in a camera
    try:
        while (got := queue.get())[0] is not None:
            item, dropped = got
            if isinstance(item, Failed):
                raise item.error
            yield item, dropped
    finally:
        stop.set()
        torch.set_num_threads(own)


def _until_failure(job: Callable[[], Iterator[T]]) -> Iterator[T | Failed[T] | None]:
    """The items of a job, then None, or what stopped it."""
    try:
        yield from job()
    except Exception as error:
        yield Failed(error)
    else:
        yield None


def _put(queue: Queue[Any], item: Any, stop: threading.Event) -> bool:
    """Wait for room. False if nobody wants it any more."""
    while not stop.is_set():
        try:
            queue.put(item, timeout=_POLL)
            return True
        except Full:
            continue
    return False
