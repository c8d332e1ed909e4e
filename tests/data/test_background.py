"""Threads that read while the caller computes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from tubelet.data.background import in_threads, latest
from tubelet.data.reader import VideoError


def count(job: int, up_to: int) -> Iterator[int]:
    yield from range(10 * job, 10 * job + up_to)


def test_every_job_is_done_in_its_order() -> None:
    own = torch.get_num_threads()
    found = list(in_threads([partial(count, job, 3) for job in range(7)], threads=3, room=2))
    for job in range(7):
        assert [item for number, item in found if number == job] == [10 * job, 10 * job + 1, 10 * job + 2, None]
    assert torch.get_num_threads() == own
    assert list(in_threads([], 2, 2)) == []


def test_a_video_error_ends_its_job_alone_and_others_end_all() -> None:
    def broken(error: Exception) -> Iterator[int]:
        yield 1
        raise error

    jobs = [partial(broken, VideoError("x.mp4", "is broken")), partial(count, 1, 2)]
    found = list(in_threads(jobs, threads=1, room=8))
    assert [str(item) for _, item in found] == ["1", "x.mp4: is broken", "10", "11", "None"]
    with pytest.raises(KeyError, match="a bug"):
        list(in_threads([partial(broken, KeyError("a bug")), partial(count, 1, 2)], threads=2, room=8))


def test_readers_wait_for_room_and_end_when_nobody_wants_more() -> None:
    made = []

    def endless() -> Iterator[int]:
        while True:
            made.append(1)
            yield len(made)

    before = threading.active_count()
    items = in_threads([endless], threads=1, room=3)
    next(items)
    time.sleep(0.2)
    assert len(made) <= 5  # three wait, one is in hand, one was fetched
    items.close()
    assert threading.active_count() == before


def test_late_items_are_dropped_and_counted() -> None:
    fetched, done = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        yield 0
        fetched.wait(5)
        yield from range(1, 10)
        done.set()

    items = latest(source, room=2)
    assert next(items) == (0, 0)
    fetched.set()
    done.wait(5)
    assert list(items) == [(8, 6), (9, 7)]  # how many were dropped when each was put: 1 to 6, and 7
