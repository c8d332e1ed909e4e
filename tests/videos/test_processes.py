import ctypes
import os
import signal
import time

import pytest

from tubelet.videos.processes import Killed, heartbeat, run_jobs


def work(job, report):
    if job == "crash":
        report("first")
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == "hang":
        report("second")
        ctypes.PyDLL(None).sleep(1000)  # a native call that keeps the interpreter's lock
    if job == "wrong":
        raise KeyError("our own bug")
    return job * 2


def test_hanging_and_crashing_jobs_hurt_only_themselves():
    begin = time.monotonic()
    jobs = [1, "crash", 2, "hang", 3, 4, "crash", 5]
    results = list(run_jobs(work, jobs, workers=2, limit=1.0))
    assert sorted(value for _, value in results if not isinstance(value, Killed)) == [2, 4, 6, 8, 10]
    killed = [(job, value.stage, value.reason) for job, value in results if isinstance(value, Killed)]
    assert sorted(killed) == [
        ("crash", "first", "crashes its decoder (SIGSEGV)"),
        ("crash", "first", "crashes its decoder (SIGSEGV)"),
        ("hang", "second", "keeps its decoder busy for more than 1 seconds"),
    ]
    assert time.monotonic() - begin < 60


def long_work(job, report):
    beat = heartbeat(report, "decode", 0.2)
    for _ in range(30):
        time.sleep(0.1)
        beat()
    return job


def test_slow_work_that_makes_progress_is_not_killed():
    assert list(run_jobs(long_work, [1], workers=1, limit=1.5)) == [(1, 1)]  # it takes 3 s


def test_our_own_errors_are_raised():
    with pytest.raises(KeyError, match="our own bug"):
        list(run_jobs(work, [1, "wrong"], workers=1, limit=60.0))


def test_fewer_jobs_than_workers():
    assert list(run_jobs(work, [], workers=3, limit=1.0)) == []
    assert list(run_jobs(work, [4], workers=3, limit=60.0)) == [(4, 8)]
    with pytest.raises(ValueError, match="workers must be at least 1"):
        list(run_jobs(work, [4], workers=0, limit=1.0))
