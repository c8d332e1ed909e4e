"""Reading and writing preprocessor_config.json: how a Hugging Face directory describes the preparation of pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tubelet.data.transforms import Preprocess
from tubelet.models.base import encoder_of
from tubelet.nodes import Node, build, path_of
from tubelet.weights.formats.hf_common import refuse
from tubelet.weights.formats.hf_family import Family

NAME = "preprocessor_config.json"
FRAMES = {"frame_sampling": "sampling", "frame_stride": "stride", "frames_per_second": "fps", "frame_pad": "pad"}
"""Our additions to the file. transformers keeps them but does not use them: its processors get chosen frames."""
_NAMES = (NAME, "video_preprocessor_config.json")


def read(directory: Path, family: Family, encoder: Node) -> Node:
    """A node of Preprocess. Without a file, the preprocessing of the family's published weights.

    Raises ValueError, naming the file, if it asks for something that this project does not support.
    """
    path = next((directory / name for name in _NAMES if (directory / name).is_file()), None)
    if path is None:
        return _node(family.preprocess, family, encoder, "")
    return _node(json.loads(path.read_text()), family, encoder, str(path))


def describe(model: Any, family: Family) -> Node:
    """The file for one of our models. An encoder without `preprocess` gets that of the family's published weights."""
    grid, channels = model.grid, encoder_of(model).in_channels
    encoder = {"image_size": min(grid.height, grid.width), "in_channels": channels}
    preprocess: Preprocess = getattr(model, "preprocess", None) or build(_node(family.preprocess, family, encoder, ""))
    refuse(
        preprocess.offset not in ((0.0, 1.0) if family.takes_offset else (0.0,)), f"an offset of {preprocess.offset}"
    )
    file = {
        "image_processor_type": family.processor,
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
    return file | {"offset": preprocess.offset == 1.0} if family.takes_offset else file


def _node(file: Node, family: Family, encoder: Node, path: str) -> Node:
    if file.get("resample", 2) != 2:
        raise ValueError(f"{path} resizes with resample {file['resample']}; only bilinear (2) is supported")
    size = file.get("size", {"shortest_edge": encoder["image_size"]})
    short_side = size if isinstance(size, int) else size.get("shortest_edge")
    if short_side is None:
        raise ValueError(f"{path} resizes to {size}; only a 'shortest_edge' keeps the aspect of a video")
    channels = encoder["in_channels"]
    mean, std = (file.get(name, family.preprocess[name]) for name in ("image_mean", "image_std"))
    if not file.get("do_normalize", True) or (not path and len(mean) != channels):
        mean, std = [0.0] * channels, [1.0] * channels
    if len(mean) != channels:
        raise ValueError(f"{path} has {len(mean)} means, the model {channels} channels")
    frames = family.preprocess | file
    scale = file.get("rescale_factor", family.preprocess.get("rescale_factor", 1 / 255))
    return {
        "_target_": path_of(Preprocess),
        "short_side": None if short_side == encoder["image_size"] else short_side,
        "mean": list(mean),
        "std": list(std),
        "scale": scale if file.get("do_rescale", True) else 1.0,
        **{ours: frames[name] for name, ours in FRAMES.items() if name in frames},
        "offset": 1.0 if family.takes_offset and file.get("offset", True) else 0.0,
    }
