"""Options that several sub-commands of `tubelet` share."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml


def importable(packages: list[str] | None) -> list[str]:
    """Add the current directory to the import path, as train.py does: a trusted package may be there."""
    if packages:
        sys.path.insert(0, os.getcwd())
    return packages or []


def settings(pairs: Sequence[str] | None) -> dict[str, Any] | None:
    """`["short_side=null", "size=[224, 224]"]` -> {"short_side": None, "size": [224, 224]}; None for nothing.

    Raises ValueError for an entry that is no KEY=VALUE.
    """
    if not pairs:
        return None
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise ValueError(f"--preprocess takes KEY=VALUE, for example short_side=null; got '{pair}'")
        found[key] = yaml.safe_load(value)
    return found


def whole_numbers(option: str, text: str | None) -> list[int]:
    """ "6,12" -> [6, 12]; None -> []. Raises ValueError for anything else, naming the option."""
    try:
        return [] if text is None else [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"{option} takes whole numbers and commas, for example 6,12; got '{text}'") from error


Model = Annotated[
    str,
    typer.Argument(
        help="weights: run directory, .ckpt, Hugging Face directory or hub id (owner/name or owner/name@revision), .pth"
    ),
]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        callback=importable,
        help="package of your own whose classes the weights may name; may be given several times",
    ),
]
Device = Annotated[str, typer.Option(help="device to run on: cpu, cuda, cuda:1, mps, ...")]
Preprocess = Annotated[
    list[str] | None,
    typer.Option(
        "--preprocess",
        metavar="KEY=VALUE",
        help="setting of how pixels are prepared, instead of that of the weights, for example short_side=null; may be "
        "given several times; the keys are those of conf/preprocess",
    ),
]
ManifestFile = Annotated[
    Path, typer.Argument(help="list of videos: a CSV with a `path` column, or a file of `path label` lines")
]
Shard = Annotated[
    str | None, typer.Option(help="i/n: work on part i of n parts of the list, i from 0 to n - 1; default: all")
]
FrameStride = Annotated[
    int | None, typer.Option(help="frames of the file from one sampled frame to the next; default: as in training")
]
Fps = Annotated[float | None, typer.Option(help="sampled frames per second, instead of --frame-stride")]
