"""Finding the files of a model: from a run directory, a checkpoint, a directory, a hub id or a file of weights."""

from __future__ import annotations

from pathlib import Path

from tubelet.weights.formats.base import Found
from tubelet.weights.sharded import is_sharded, read_sharded
from tubelet.weights.source import read_torch_file


def find(path: str | Path) -> Found:
    """The file or directory that `path` stands for, with the contents of a file. Raises ValueError if there is none."""
    path = Path(path)
    if path.is_dir() and not is_sharded(path):
        if (path / "config.json").is_file():
            return Found(path)
        path = _of_run(path)
    if not path.exists():
        return Found(_download(_hub_id(path)))
    return Found(path, read_sharded(path) if path.is_dir() else read_torch_file(path))


def _of_run(directory: Path) -> Path:
    """The checkpoint of a run directory to load: best.ckpt if there is one, else last.ckpt, else previous.ckpt."""
    for name in ("best.ckpt", "last.ckpt", "previous.ckpt"):
        path = directory / "checkpoints" / name
        if path.exists():
            return path
    raise ValueError(f"{directory} holds neither config.json nor checkpoints/best.ckpt or checkpoints/last.ckpt")


def _hub_id(path: Path) -> str:
    """`path` as a hub id. Raises ValueError if it cannot be one, because it does not look like `owner/name`."""
    if path.suffix in (".ckpt", ".pth", ".pt", ".bin", ".safetensors") or path.is_absolute() or len(path.parts) != 2:
        raise ValueError(f"{path} does not exist")
    return path.as_posix()


def _download(name: str) -> Path:
    """A hub id -> its local snapshot. Raises ValueError if it is neither on the hub nor in the cache."""
    from huggingface_hub import snapshot_download

    try:
        found = Path(snapshot_download(name, allow_patterns=["*.json", "model*.safetensors"]))
        # many repositories hold the same weights twice: the pickled ones are fetched only if there are no others
        if not list(found.glob("model*.safetensors")):
            found = Path(snapshot_download(name, allow_patterns=["*.json", "pytorch_model*.bin"]))
    except Exception as error:  # the hub's client raises a dozen types of errors with this meaning
        raise ValueError(f"{name} is no file or directory, and could not be fetched from the hub: {error}") from error
    return found
