"""Writing a model for the rest of the world."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors.torch import save
from torch import nn

from tubelet.weights import hf_processor, huggingface
from tubelet.weights.load import load_model


def save_pretrained(model: nn.Module, directory: str | Path) -> None:
    """Write a Hugging Face directory: config.json, model.safetensors, preprocessor_config.json.

    transformers' `from_pretrained` loads it and computes the same. Raises ValueError, before anything is written,
    naming what that format cannot hold.
    """
    state, config, processor = huggingface.to_files(model)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / "model.safetensors", save(state, metadata={"format": "pt"}))
    _write(directory / hf_processor.NAME, _json(processor))
    _write(directory / "config.json", _json(config))


def convert(path: str | Path, directory: str | Path, **overrides: object) -> None:
    """Any weights that `load_model` reads -> a Hugging Face directory."""
    save_pretrained(load_model(path, **overrides), directory)


def _json(contents: dict[str, object]) -> bytes:
    return (json.dumps(contents, indent=2) + "\n").encode()


def _write(path: Path, contents: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(contents)
    os.replace(partial, path)
