"""Finding the files of a model: from a run directory, a checkpoint, a directory, a hub id or a file of weights."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

from tubelet.weights.formats.base import Found
from tubelet.weights.sharded import is_sharded, read_sharded
from tubelet.weights.source import read_weights

_CONFIG = "config.json"
_WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pth", ".pt")


def find(path: str | Path) -> Found:
    """The file or directory that `path` stands for, with the contents of a file. Raises ValueError if there is none.

    A `.safetensors` or `.bin` beside a config.json stands for their directory: the config describes it.
    """
    given, path = str(path), Path(path)
    if path.is_dir() and not is_sharded(path):
        return _in_directory(path)
    if not path.exists():
        return _in_directory(_download(*_hub_id(given)))
    if path.is_dir():
        return Found(path, read_sharded(path))
    if path.name == _CONFIG:
        return Found(path.parent)
    if path.suffix in (".safetensors", ".bin") and (path.parent / _CONFIG).is_file():
        return Found(path.parent, weights=path)
    return Found(path, read_weights(path))


def _in_directory(directory: Path) -> Found:
    """The model of a directory: of its config.json, else the checkpoint of a run, which is best.ckpt if there is one,
    else last.ckpt, else previous.ckpt.
    """
    adapter = directory / "adapter_config.json"
    if (directory / _CONFIG).is_file() and not (adapter.is_file() and not _weights_in(directory)):
        return Found(directory)
    for name in ("best.ckpt", "last.ckpt", "previous.ckpt"):
        path = directory / "checkpoints" / name
        if path.exists():
            return Found(path, read_sharded(path) if path.is_dir() else read_weights(path))
    if adapter.is_file():
        base = "the model"
        with suppress(ValueError, AttributeError):
            base = json.loads(adapter.read_text()).get("base_model_name_or_path") or base
        raise ValueError(
            f"{directory} holds adapters (LoRA and the like), which are changes to {base} and no model: join them with "
            "peft (`model.merge_and_unload()`), save the result with `save_pretrained`, and give that directory"
        )
    if weights := _weights_in(directory):
        raise ValueError(
            f"{directory} holds {', '.join(weights[:5])}, but no config.json that describes a model: put it beside "
            "them, or give the file itself"
        )
    raise ValueError(f"{directory} holds neither config.json nor checkpoints/best.ckpt or checkpoints/last.ckpt")


def _weights_in(directory: Path) -> list[str]:
    names = sorted(path.name for path in directory.iterdir() if path.suffix in _WEIGHTS)
    return [name for name in names if not name.startswith(("adapter_", "training_args", "optimizer"))]


def _hub_id(given: str) -> tuple[str, str | None]:
    """`owner/name`, or `owner/name@revision` with a branch, a tag or a commit -> name, revision. Raises ValueError if
    `given` does not look like one.
    """
    found = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", given)
    if not found or given.endswith(_WEIGHTS) or given.startswith((".", "~")):
        raise ValueError(f"{given} does not exist")
    return found[1], found[2]


def _download(name: str, revision: str | None) -> Path:
    """A hub id -> its local snapshot. Raises ValueError if it is neither on the hub nor in the cache."""
    from huggingface_hub import snapshot_download

    try:
        found = Path(snapshot_download(name, revision=revision, allow_patterns=["*.json", "model*.safetensors"]))
        # many repositories hold the same weights twice: the pickled ones are fetched only if there are no others
        if not list(found.glob("model*.safetensors")):
            pickled = ["*.json", "pytorch_model*.bin"]
            found = Path(snapshot_download(name, revision=revision, allow_patterns=pickled))
    except Exception as error:  # the hub's client raises a dozen types of errors with this meaning
        what = name if revision is None else f"{name} at revision {revision}"
        raise ValueError(f"{what} is no file or directory, and could not be fetched from the hub: {error}") from error
    return found
