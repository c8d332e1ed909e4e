"""One list shared out among several machines."""

from __future__ import annotations

import re


def shard_of(lines: int, shard: str) -> range:
    """The lines of part i of n, for `shard` "i/n" with i from 0 to n - 1: in order they are the whole.

    Raises ValueError if it is written otherwise, or if the part is empty.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError(f"a shard is i/n with i from 0 to n - 1, got {shard!r}")
    i, n = int(match[1]), int(match[2])
    part = range(lines * i // n, lines * (i + 1) // n)
    if not part:
        raise ValueError(f"shard {shard} of a manifest with {lines} lines is empty")
    return part
