"""What a process does that loads clips one after the other, and the memory through which it hands them over."""

from __future__ import annotations

import ctypes
import os
import shutil

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


def cores() -> int:
    """The cores that this process may use. macOS and Windows only say how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_room(batch: int, workers: int, loaders: int = 1, shared: str = "/dev/shm") -> None:
    """Raises ValueError if the machine's shared memory cannot hold a batch of `batch` bytes from each worker of each
    loader. Without this check workers die or hang one by one when it is full, as in a container by default (64 MB).
    """
    if not os.path.isdir(shared):
        return
    free, need = shutil.disk_usage(shared).free, batch * workers * loaders
    if free < need:
        raise ValueError(
            f"{shared} has {free / 1e6:.0f} MB free, and data.num_workers={workers} needs {need / 1e6:.0f} MB "
            f"for batches of {batch / 1e6:.0f} MB: start the container with more (docker run --shm-size=8g, or "
            "--ipc=host), or take fewer workers, a smaller data.batch_size, or data.num_workers=0"
        )
