"""What a process does that loads clips one after the other."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST = 32 * 2**20  # bytes; the most glibc allows


def keep_memory(worker: int = 0) -> None:
    """Have glibc keep freed memory for the next clip. By default it returns the frames of every clip to the system, and
    the page faults of taking them back cost as much as cropping and resizing. A loader's `worker_init_fn`; elsewhere
    than on glibc it does nothing.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST)
        libc.mallopt(_TRIM_THRESHOLD, 8 * _LARGEST)
