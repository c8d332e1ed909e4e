"""Reading and writing preprocessor_config.json: how a Hugging Face directory describes the preparation of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tubelet.data.transforms import Preprocess
from tubelet.encoders.base import sides
from tubelet.models.base import encoder_of
from tubelet.nodes import Node, build, path_of
from tubelet.weights.formats.hf_common import refuse
from tubelet.weights.formats.hf_family import Family
from tubelet.weights.source import read_json

NAME = "preprocessor_config.json"
FRAMES = {"frame_sampling": "sampling", "frame_stride": "stride", "frames_per_second": "fps", "frame_pad": "pad"}
"""Our additions to the file. transformers keeps them but does not use them: its processors get chosen frames."""
_NAMES = (NAME, "video_preprocessor_config.json")
_RESAMPLE = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the filters that torch has for videos, too."""
_FOLLOWED = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_sample_frames")
"""Steps of a processor that are followed, or that our readers do: frames are RGB, and clips are sampled."""


def read(directory: Path, family: Family, encoder: Node) -> tuple[Node, str | None]:
    """A node of Preprocess, and the text of an error if the file asks for something that cannot be followed. Then the
    node resizes frames so that they fill the crop, and the caller decides. Without a file: the preprocessing of the
    family's published weights.

    Raises ValueError, naming the file, if it contradicts the model.
    """
    path = next((directory / name for name in _NAMES if (directory / name).is_file()), None)
    if path is None:
        return _pixels(family.preprocess, family, encoder, "") | _geometry(family.preprocess, encoder), None
    file = read_json(path)
    pixels = _pixels(file, family, encoder, str(path))
    try:
        return pixels | _geometry(file, encoder), None
    except ValueError as error:
        return pixels, (
            f"{path} {error}. To resize frames so that they fill the model's clip, pass "
            "preprocess={'short_side': None} (on the command line: --preprocess short_side=null); other keys of "
            "conf/preprocess work, too"
        )


def describe(model: Any, family: Family) -> Node:
    """The file for one of our models. An encoder without `preprocess` gets that of the family's published weights."""
    grid, channels = model.grid, encoder_of(model).in_channels
    encoder = {"image_size": (grid.height, grid.width), "in_channels": channels}
    published = _pixels(family.preprocess, family, encoder, "") | _geometry(family.preprocess, encoder)
    preprocess: Preprocess = getattr(model, "preprocess", None) or build(published)
    refuse(
        preprocess.offset not in ((0.0, 1.0) if family.takes_offset else (0.0,)), f"an offset of {preprocess.offset}"
    )
    file = {
        "image_processor_type": family.processor,
        "do_resize": True,
        "size": (
            {"shortest_edge": preprocess.short_side or min(grid.height, grid.width)}
            if preprocess.size is None
            else dict(zip(("height", "width"), preprocess.size, strict=True))
        ),
        "resample": next(number for number, name in _RESAMPLE.items() if name == preprocess.interpolation),
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


def _geometry(file: Mapping[str, Any], encoder: Node) -> Node:
    """How frames are resized before the crop. Raises ValueError, whose text follows the file's name."""
    crop = sides(encoder["image_size"])
    for step in ("do_resize", "do_center_crop", *(name for name in file if name.startswith("do_"))):
        if file.get(step) and step not in _FOLLOWED:
            raise ValueError(f"asks for {step}, which is not supported")
    if not file.get("do_resize", True):
        raise ValueError("does not resize frames (do_resize: false), so only videos of the right size would fit")
    if (resample := file.get("resample", 2)) not in _RESAMPLE:
        raise ValueError(f"resizes with resample {resample}; bilinear (2) and bicubic (3) are supported")
    node: Node = {"interpolation": _RESAMPLE[resample]}
    exact, edge = _size(file.get("size", {"shortest_edge": min(crop)}))
    crops = file.get("do_center_crop", True)
    wanted = file.get("crop_size") if crops else None
    if wanted is not None and (_size(wanted)[0] or (wanted, wanted)) != crop:
        raise ValueError(f"crops frames to {wanted}, the model takes {_times(crop)}")
    if not crops and exact != crop:
        raise ValueError(
            f"does not crop frames (do_center_crop: false) after it has resized them to {file.get('size')}, and the "
            f"model takes {_times(crop)}"
        )
    if edge is not None:
        if edge < min(crop):
            raise ValueError(f"resizes the short side to {edge}, and the model takes {_times(crop)}")
        return {**node, "short_side": None if edge == min(crop) else edge}
    if exact is None or exact[0] < crop[0] or exact[1] < crop[1]:
        raise ValueError(f"resizes frames to {file.get('size')}, and the model takes {_times(crop)}")
    return {**node, "size": list(exact)}


def _size(size: Any) -> tuple[tuple[int, int] | None, int | None]:
    """A size as processors write it -> (height and width, None), or (None, short side), or (None, None)."""
    if isinstance(size, int):
        return None, size
    if isinstance(size, Mapping) and "shortest_edge" in size:
        return None, size["shortest_edge"]
    if isinstance(size, Mapping) and {"height", "width"} <= size.keys():
        return (size["height"], size["width"]), None
    return None, None


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _pixels(file: Mapping[str, Any], family: Family, encoder: Node, path: str) -> Node:
    """All but the geometry: how numbers are scaled, and which frames make a clip."""
    channels = encoder["in_channels"]
    mean, std = (file.get(name, family.preprocess[name]) for name in ("image_mean", "image_std"))
    if not file.get("do_normalize", True) or (not path and len(mean) != channels):
        mean, std = [0.0] * channels, [1.0] * channels
    if len(mean) != channels:
        raise ValueError(f"{path} has {len(mean)} means, the model {channels} channels")
    frames = family.preprocess | dict(file)
    rescales = file.get("do_rescale", True)
    scale = file.get("rescale_factor", family.preprocess.get("rescale_factor", 1 / 255))
    return {
        "_target_": path_of(Preprocess),
        "mean": list(mean),
        "std": list(std),
        "scale": scale if rescales else 1.0,
        **{ours: frames[name] for name, ours in FRAMES.items() if name in frames},
        "offset": 1.0 if rescales and family.takes_offset and file.get("offset", True) else 0.0,
    }
