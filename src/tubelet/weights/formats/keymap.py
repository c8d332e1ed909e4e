"""Renaming weights by a table that works in both directions.

A row pairs one of our names with one foreign name, or with several foreign names whose tensors we concatenate along the
first axis. `{i}` stands for the number of a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import torch

from tubelet.weights.formats.base import CannotHold
from tubelet.weights.source import State

Row = tuple[str, str | tuple[str, ...]]


def to_ours(state: State, rows: Iterable[Row]) -> State:
    """Foreign weights under our names. A name that is in no row is kept; placing the weights then reports it."""
    rest, ours = dict(state), State()
    for name, parts in _each_block(rows, state):
        if all(part in rest for part in parts):
            ours[name] = torch.cat([rest.pop(part) for part in parts]) if len(parts) > 1 else rest.pop(parts[0])
    return ours | rest


def to_theirs(state: State, rows: Iterable[Row]) -> State:
    """Our weights under foreign names. Raises CannotHold if a weight has no foreign name."""
    rest, theirs = dict(state), State()
    for name, parts in _each_block(rows, state):
        if name in rest:
            theirs.update(zip(parts, rest.pop(name).chunk(len(parts)), strict=True))
    if rest:
        raise CannotHold(f"no name in this format for: {', '.join(sorted(rest))}")
    return theirs


def respell(state: State, spellings: Iterable[tuple[str, str]]) -> State:
    """Names rewritten by (regular expression, replacement) pairs, for files that spell one format in two ways. A file
    may hold a weight under both spellings. Raises ValueError if the two differ.
    """
    new: State = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in spellings:
            name = re.sub(pattern, replacement, name)
        if name in new and not torch.equal(new[name], value):
            raise ValueError(f"{key} and {name} are two names of one weight, and their values differ")
        new[name] = value
    return new


def _each_block(rows: Iterable[Row], state: State) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every row once; rows with `{i}` once per block number that occurs in the weights."""
    numbers = sorted({int(part) for key in state for part in key.split(".") if part.isdigit()})
    for ours, theirs in rows:
        parts = (theirs,) if isinstance(theirs, str) else theirs
        for i in numbers if "{i}" in ours else [0]:
            yield ours.format(i=i), tuple(part.format(i=i) for part in parts)
