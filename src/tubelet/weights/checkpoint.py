"""This project's own checkpoints and run directories.

A checkpoint embeds the config of its model, so it loads wherever it is moved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tubelet.weights.source import Source, clean_keys


def find(directory: Path) -> Path | None:
    """The checkpoint to use of a run directory: the best if it was kept, else the last; None if it is no run."""
    for name in ("best.ckpt", "last.ckpt", "previous.ckpt"):
        path = directory / "checkpoints" / name
        if path.exists():
            return path
    return None


def is_ours(contents: Any) -> bool:
    return isinstance(contents, dict) and "model_config" in contents


def from_contents(path: Path, contents: Any) -> Source:
    """EMA weights if they were kept."""
    weights = contents.get("ema_state_dict") or contents.get("state_dict")
    if not weights:
        raise ValueError(f"{path} holds no 'state_dict'")
    state = {key.removeprefix("model."): value for key, value in clean_keys(weights).items() if _of_model(key, weights)}
    return Source(str(path), contents["model_config"], state)


def _of_model(key: str, weights: dict[str, Any]) -> bool:
    """A LightningModule may hold more than its model, a metric say."""
    return key.startswith("model.") or not any(name.startswith("model.") for name in weights)
