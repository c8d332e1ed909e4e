"""Writing a model as a directory: in transformers' format where it can hold the model, else in our own."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file
from torch import nn

from tubelet.models.masked import MaskedModel
from tubelet.nodes import Node
from tubelet.storage import replacing, write_text
from tubelet.weights.formats import hf_processor
from tubelet.weights.formats.base import CannotHold, Files
from tubelet.weights.formats.directory import Directory
from tubelet.weights.formats.huggingface import HuggingFace
from tubelet.weights.load import load_model, read

Choice = Literal["auto", "transformers", "tubelet"]


def save_pretrained(
    model: nn.Module, directory: str | Path, format: Choice = "auto", masking: Node | None = None
) -> str | None:
    """Write config.json, model.safetensors and preprocessor_config.json. `load_model` reads them, from the directory or
    from a hub.

    Args:
        format: "transformers": transformers' `from_pretrained` loads it, too, and computes the same; "tubelet": any
            model; "auto": the first if it can hold the model, else the second.
        masking: the node of the masking that the model was trained with; "tubelet" alone keeps it.

    Returns why transformers cannot load it, or None if it can. Raises ValueError, before anything is written, for a
    model that the format cannot hold: it names the part.
    """
    files, reason = files_of(model, format)
    if masking is not None and reason is not None:
        files.config["masking"] = masking
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with replacing(directory / "model.safetensors") as temporary:
        save_file(files.state, temporary, metadata={"format": "pt"})
    write_text(directory / hf_processor.NAME, _json(files.processor))
    write_text(directory / "config.json", _json(files.config))
    return reason


def files_of(model: nn.Module, format: Choice = "auto") -> tuple[Files, str | None]:
    """The contents of the files that `save_pretrained` writes, and what it returns."""
    if format not in ("auto", "transformers", "tubelet"):
        raise ValueError(f"unknown format '{format}', expected auto, transformers or tubelet")
    if format == "tubelet":
        return Directory().write(model), "format=tubelet"
    try:
        return HuggingFace().write(model), None
    except CannotHold as error:
        if format == "transformers":
            raise
        return Directory().write(model), str(error)


def convert(
    path: str | Path,
    directory: str | Path,
    format: Choice = "auto",
    *,
    trust: Collection[str] = (),
    **overrides: object,
) -> str | None:
    """Any weights that `load_model` reads -> a directory. Returns what `save_pretrained` returns."""
    model = load_model(path, trust=trust, **overrides)
    masking = read(path).masking if isinstance(model, MaskedModel) else None
    return save_pretrained(model, directory, format, masking)


def _json(contents: dict[str, object]) -> str:
    return json.dumps(contents, indent=2) + "\n"
