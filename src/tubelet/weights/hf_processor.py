"""preprocessor_config.json, both ways: what a Hugging Face directory says of pixels."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from tubelet.data.transforms import Preprocess
from tubelet.weights import hf_vivit
from tubelet.weights.build import Node, build, target
from tubelet.weights.hf_common import encoder_of, refuse

NAME = "preprocessor_config.json"
FRAMES = {"frame_sampling": "sampling", "frame_stride": "stride", "frames_per_second": "fps", "frame_pad": "pad"}
"""Our additions to the file, which transformers keeps but does not use: its processors are given chosen frames."""
_NAMES = (NAME, "video_preprocessor_config.json")


def read(directory: Path, family: ModuleType, encoder: Node) -> Node:
    """A node of Preprocess. Where there is no file, what the family's published weights expect.

    Raises ValueError, naming the file, if it asks for what this project does not do.
    """
    path = next((directory / name for name in _NAMES if (directory / name).is_file()), None)
    if path is None:
        return _node(family.PREPROCESS, family, encoder, "")
    return _node(json.loads(path.read_text()), family, encoder, str(path))


def describe(model: Any, family: ModuleType) -> Node:
    """The file for a model of ours; the family's defaults for an encoder that does not know what it expects."""
    grid, channels = model.grid, encoder_of(model).in_channels
    encoder = {"image_size": min(grid.height, grid.width), "in_channels": channels}
    preprocess: Preprocess = getattr(model, "preprocess", None) or build(_node(family.PREPROCESS, family, encoder, ""))
    vivit = family is hf_vivit
    refuse(preprocess.offset not in ((0.0, 1.0) if vivit else (0.0,)), f"an offset of {preprocess.offset}")
    file = {
        "image_processor_type": "VivitImageProcessor" if vivit else "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": preprocess.short_side or min(grid.height, grid.width)},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": grid.height, "width": grid.width},
        "do_rescale": True,
        "rescale_factor": preprocess.scale,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
        **{name: getattr(preprocess, ours) for name, ours in FRAMES.items()},
    }
    return file | {"offset": preprocess.offset == 1.0} if vivit else file


def _node(file: Node, family: ModuleType, encoder: Node, path: str) -> Node:
    if file.get("resample", 2) != 2:
        raise ValueError(f"{path} resizes with resample {file['resample']}; only bilinear (2) is supported")
    size = file.get("size", {"shortest_edge": encoder["image_size"]})
    short_side = size if isinstance(size, int) else size.get("shortest_edge")
    if short_side is None:
        raise ValueError(f"{path} resizes to {size}; only a 'shortest_edge' keeps the aspect of a video")
    channels = encoder["in_channels"]
    mean, std = (file.get(name, family.PREPROCESS[name]) for name in ("image_mean", "image_std"))
    if not file.get("do_normalize", True) or (not path and len(mean) != channels):
        mean, std = [0.0] * channels, [1.0] * channels
    if len(mean) != channels:
        raise ValueError(f"{path} has {len(mean)} means, the model {channels} channels")
    told = family.PREPROCESS | file
    scale = file.get("rescale_factor", family.PREPROCESS.get("rescale_factor", 1 / 255))
    return {
        "_target_": target(Preprocess),
        "short_side": None if short_side == encoder["image_size"] else short_side,
        "mean": list(mean),
        "std": list(std),
        "scale": scale if file.get("do_rescale", True) else 1.0,
        **{ours: told[name] for name, ours in FRAMES.items() if name in told},
        "offset": 1.0 if family is hf_vivit and file.get("offset", True) else 0.0,
    }
