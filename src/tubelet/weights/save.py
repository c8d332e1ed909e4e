"""Writing a model in the format of Hugging Face."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from safetensors.torch import save
from torch import nn

from tubelet.storage import write_bytes, write_text
from tubelet.weights.formats import hf_processor
from tubelet.weights.formats.base import Writer
from tubelet.weights.formats.huggingface import HuggingFace
from tubelet.weights.load import load_model

FORMAT: Writer = HuggingFace()


def save_pretrained(model: nn.Module, directory: str | Path) -> None:
    """Write a Hugging Face directory: config.json, model.safetensors, preprocessor_config.json.

    transformers' `from_pretrained` loads it and computes the same. If the format cannot hold a part of the model, it
    raises ValueError naming that part, before anything is written.
    """
    files = FORMAT.write(model)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_bytes(directory / "model.safetensors", save(files.state, metadata={"format": "pt"}))
    write_text(directory / hf_processor.NAME, _json(files.processor))
    write_text(directory / "config.json", _json(files.config))


def convert(path: str | Path, directory: str | Path, *, trust: Collection[str] = (), **overrides: object) -> None:
    """Any weights that `load_model` reads -> a Hugging Face directory."""
    save_pretrained(load_model(path, trust=trust, **overrides), directory)


def _json(contents: dict[str, object]) -> str:
    return json.dumps(contents, indent=2) + "\n"
