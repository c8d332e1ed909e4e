"""Features of every video of a manifest, in one safetensors file.

Finished parts of the work are kept in a folder beside `out`. An interrupted run continues after the last complete part.
At the end the parts are joined.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader

from tubelet import storage
from tubelet.data.dataset import EvaluationVideos, collate
from tubelet.data.manifest import Manifest
from tubelet.encoders.base import Encoder
from tubelet.evaluate.device import device_of, on_device
from tubelet.evaluate.knn import pooled_features
from tubelet.models.base import encoder_of

_BATCHES_PER_PART = 16


@torch.no_grad()
def extract_features(
    model: Any,
    manifest: str | Path,
    out: str | Path,
    *,
    per_token: bool = False,
    batch_size: int = 8,
    num_workers: int = 2,
    device: str | torch.device = "cpu",
    reader: str = "auto",
) -> Path:
    """Write the features of every video, in the order of the manifest.

    The file holds `features` [n,D] float32, the mean token of the clip in the middle of each video; with `per_token`
    all tokens [n,prefix+N,D] float16. It also holds `label` int64 [n], -1 where there is none, and the metadata `paths`
    (JSON) and `model` (`stamp_of`). Raises VideoError for a video that cannot be read, ValueError if the folder holds
    parts of other work.
    """
    out = Path(out)
    if out.suffix != ".safetensors":
        raise ValueError(f"cannot write '{out}': the ending must be .safetensors")
    if batch_size < 1 or num_workers < 0:
        raise ValueError(f"batch size must be at least 1, workers at least 0, got {batch_size} and {num_workers}")
    encoder = on_device(encoder_of(model), device).eval()
    videos = Manifest.read(manifest)
    preprocess = model.preprocess
    dataset = EvaluationVideos(videos, encoder.grid, preprocess.frames(), seed=0, preprocess=preprocess, reader=reader)
    parts = _parts_folder(out, encoder, videos, per_token, batch_size)
    batches = [[(0, i) for i in part.tolist()] for part in torch.arange(len(videos)).split(batch_size)]
    # every part but the last has the same number of batches; if the last exists too, the slice below is empty
    done = len(list(parts.glob("*.safetensors"))) * _BATCHES_PER_PART
    loader = DataLoader(dataset, batch_sampler=batches[done:], collate_fn=collate, num_workers=num_workers)
    rows: list[Tensor] = []
    labels: list[Tensor] = []
    left = track(loader, f"features of {len(videos)} videos", total=len(batches[done:]))
    for number, batch in enumerate(left, done + 1):
        clip = preprocess.normalise(batch.clip.to(device_of(encoder)))
        rows.append(encoder(clip).half().cpu() if per_token else pooled_features(encoder, clip).cpu())
        labels.append(batch.label)
        if number % _BATCHES_PER_PART == 0 or number == len(batches):
            _save({"features": torch.cat(rows), "label": torch.cat(labels)}, parts / f"{number:08d}.safetensors")
            rows.clear()
            labels.clear()
    whole = [load_file(part) for part in sorted(parts.glob("*.safetensors"))]
    joined = {name: torch.cat([part[name] for part in whole]) for name in whole[0]}
    paths = json.dumps([videos.record(i).path for i in range(len(videos))])
    _save(joined, out, {"paths": paths, "model": stamp_of(encoder, preprocess)})
    shutil.rmtree(parts)
    return out


def read_features(path: str | Path) -> tuple[Tensor, Tensor, list[str]]:
    """features, label and paths from a file that `extract_features` wrote."""
    with safe_open(path, "pt") as file:
        return file.get_tensor("features"), file.get_tensor("label"), json.loads(file.metadata()["paths"])


def _parts_folder(out: Path, encoder: Encoder, videos: Manifest, per_token: bool, batch_size: int) -> Path:
    """The folder of the parts. A hash in it identifies the model, the manifest and the settings that they belong to."""
    folder = out.with_name(f".{out.name}.parts")
    stamp = hashlib.blake2b(repr((per_token, batch_size, str(videos.root))).encode())
    for chunk in _bytes_of(encoder, videos):
        stamp.update(chunk)
    stamp_file = folder / "of.txt"
    if stamp_file.exists() and stamp_file.read_text() != stamp.hexdigest():
        raise ValueError(f"{folder} holds parts of another model, manifest or settings: delete it, or change --out")
    folder.mkdir(parents=True, exist_ok=True)
    stamp_file.write_text(stamp.hexdigest())
    return folder


def _bytes_of(encoder: Encoder, videos: Manifest) -> Iterator[bytes]:
    yield "\n".join(map(str, videos.table["path"].to_pylist())).encode()
    yield from weight_bytes(encoder)


def stamp_of(encoder: Encoder, preprocess: Any) -> str:
    """A hash of the weights and of how pixels are prepared for them."""
    stamp = hashlib.blake2b(repr(preprocess).encode(), digest_size=8)
    for chunk in weight_bytes(encoder):
        stamp.update(chunk)
    return stamp.hexdigest()


def weight_bytes(encoder: Encoder) -> Iterator[bytes]:
    """The weights themselves, not their file: the same path may hold another checkpoint by now."""
    for parameter in encoder.state_dict().values():
        yield parameter.float().cpu().numpy().tobytes()


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    with storage.replacing(path) as temporary:
        save_file(tensors, temporary, metadata)
