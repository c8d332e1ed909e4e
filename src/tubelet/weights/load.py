"""Loading weights of any origin: find the file, read the description of the model, build the model, place the weights.

A file may name only classes that models of tubelet consist of, and classes of packages that the caller lists in
`trust`. So loading an unknown file runs no code that the user has not named: see tubelet.nodes and docs/models.md.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from tubelet.clip import ClipGrid
from tubelet.data.labels import Labels, problem_of
from tubelet.encoders.base import Encoder, sides
from tubelet.masking import MaskGenerator, generators
from tubelet.models.base import VideoModel, encoder_of
from tubelet.models.classifier import VideoClassifier
from tubelet.nodes import Node, arguments, build, trusted_target
from tubelet.weights.find import find
from tubelet.weights.formats.base import Format
from tubelet.weights.formats.directory import Directory
from tubelet.weights.formats.huggingface import HuggingFace
from tubelet.weights.formats.mcg_nju import Original
from tubelet.weights.formats.tubelet import Checkpoint
from tubelet.weights.formats.videomae_v2 import VideoMAEv2
from tubelet.weights.overrides import override
from tubelet.weights.place import Report, place
from tubelet.weights.source import TASK_PARTS, Source
from tubelet.weights.timm_vit import TIMM, inflate, read_timm

# in this order: the first format that recognises a file reads it, and `Original` accepts every file
FORMATS: tuple[Format, ...] = (Directory(), VideoMAEv2(), HuggingFace(), Checkpoint(), Original())
Model = VideoModel | Encoder


def load_model(path: str | Path, *, trust: Collection[str] = (), **overrides: Any) -> Any:
    """A MaskedModel, VideoClassifier, encoder, or a model of a trusted package: in eval mode, float32, on the CPU.

    Args:
        path: a run directory or `.ckpt` of ours, a directory of `save_pretrained` or of transformers or its
            hub id (`owner/name`, or `owner/name@revision`), a VideoMAE or VideoMAEv2 `.pth`, or `timm:NAME`, an image
            ViT that is applied to every frame.
        trust: packages besides tubelet whose classes the file may name, for example `["my_package"]`.
        overrides: settings that the file does not contain, or that should change: num_heads, decoder_num_heads,
            image_size, num_frames, num_classes (with a new head, unless the file has that many classes),
            norm_pix_loss, drop_path, dtype, preprocess (a Preprocess, or a dict of its settings to change).

    Raises ValueError, naming the file, if its format is unknown, if its weights do not fit, if it names a class of a
    package that is not trusted, or if it lacks a setting that must then be passed.
    """
    source = read(path)
    node = _override(source, trust, overrides)
    model = _build_model(node, source.name, trust)
    if not source.normed:
        encoder_of(model).norm = nn.Identity()
    new_task = _task(node) != _task(source.node)
    return _load_weights(model, source, trust, new_task).to(overrides.get("dtype"))


def load_encoder(path: str | Path, *, trust: Collection[str] = (), **overrides: Any) -> Encoder:
    """Only the encoder, with its `preprocess`. The other parts of the model are not built, so it does not matter which
    task the encoder was trained with. Arguments and errors as in `load_model`.
    """
    source = read(path)
    if "encoder" in source.node:
        alone = {**source.encoder, "preprocess": source.node.get("preprocess")}
        state = {key: value for key, value in source.state.items() if key.startswith("encoder.")}
        source = replace(source, node=alone, state=state)
    encoder: Encoder = _build_model(_override(source, trust, overrides), source.name, trust)
    if not any(key.startswith("encoder.norm.") for key in source.state):
        encoder.norm = nn.Identity()  # of a classifier that normalises after its pool
    return _load_weights(encoder, source, trust, new_task=True).to(overrides.get("dtype"))


def _override(source: Source, trust: Collection[str], overrides: dict[str, Any]) -> Node:
    """Raises ValueError if the file prepares pixels in a way that cannot be followed, unless the caller says how."""
    if source.unsupported and overrides.get("preprocess") is None:
        raise ValueError(source.unsupported)
    return override(source.node, source.name, trust, **overrides)


def _load_weights(model: Any, source: Source, trust: Collection[str], new_task: bool) -> Any:
    report = _place_weights(model, source, new_task, trust)
    if report.dropped or report.fresh:
        print(f"{source.name}: {report}")
    return model.eval()


def _build_model(node: Node, name: str, trust: Collection[str]) -> Any:
    """The model of a node, without weights. A VideoModel takes `preprocess` as an argument. A bare encoder does not, so
    it gets it as an attribute.
    """
    target = trusted_target(node, trust)
    if not (isinstance(target, type) and issubclass(target, VideoModel | Encoder)):
        raise ValueError(f"{name} describes a {node['_target_']}, which is neither an encoder nor a VideoModel")
    if issubclass(target, VideoModel):
        return build(node, trust)
    model = build({key: value for key, value in node.items() if key != "preprocess"}, trust)
    model.check_contract()
    preprocess = node.get("preprocess") or {"_target_": "tubelet.data.transforms.Preprocess"}
    model.preprocess = build(preprocess, trust)
    return model


def start_from(
    model: Model, path: str | Path, new_task: bool = True, *, node: Node | None = None, trust: Collection[str] = ()
) -> Report:
    """Initialise the caller's model from weights of any origin. Prints which weights were taken from the file, which
    were dropped, and which parts of the model start fresh, from random values.

    `timm:NAME` inflates an image ViT of timm. With `new_task=False` nothing may be dropped or fresh. `node` is the
    description of the model; if given, settings that do not show in the tensors are compared. Raises ValueError if the
    weights do not fit, or if such a setting differs.
    """
    if str(path).startswith(TIMM):
        import timm  # takes seconds, and other weights do not need it

        encoder = model if isinstance(model, Encoder) else model.encoder
        report = inflate(encoder, timm.create_model(str(path).removeprefix(TIMM), pretrained=True))
        print(f"{path}: {report}")
        return report
    source = read(path)
    if node is not None:
        _check_settings(model, node, source, trust)
    if isinstance(model, VideoClassifier) and "head.weight" in source.state:
        source = _head_of(model, source, node, new_task)
    report = _place_weights(model, source, new_task, trust)
    print(f"{source.name}: {report}")
    return report


def _head_of(model: VideoClassifier, source: Source, node: Node | None, new_task: bool) -> Source:
    """Give the model what belongs to the weights of a head: the names of its classes, what they mean, and the units.

    Returns the source, in training without its head if that has learned something else.
    """
    old, classes = source.node, source.state["head.weight"].shape[0]
    problem = problem_of(old.get("problem_type"), classes)
    if new_task and problem != model.problem:
        return replace(source, state={key: value for key, value in source.state.items() if not key.startswith("head.")})
    if classes != model.num_classes:
        return source  # `place` refuses it, or makes a new head
    if not new_task:
        model.labels = Labels(problem, model.num_classes)
        if old.get("id2label") and model.id2label is None:
            model.id2label = {int(number): name for number, name in old["id2label"].items()}
    units = {name: old.get(name) for name in ("value_mean", "value_std")}
    model.set_units(*units.values())
    if node is not None:
        node.update(units, problem_type=model.problem)
    return source


def load_masking(
    path: str | Path, name: str | None = None, ratio: float | None = None, *, trust: Collection[str] = ()
) -> MaskGenerator:
    """The masking that a run was trained with. `name` (of tubelet.masking, or a Python path) and `ratio` replace its
    settings. If the file names no masking: tube with ratio 0.9. Raises ValueError for a name that does not exist.
    """
    node: Node = read(path).masking or {"_target_": "tubelet.masking.tube", "_partial_": True, "ratio": 0.9}
    if name is not None:
        known = generators()
        if "." not in name and name not in known:
            raise ValueError(f"unknown masking '{name}', expected one of {', '.join(known)}, or a Python path")
        target = f"tubelet.masking.{name}" if name in known else name
        node = {"_target_": target, "_partial_": True, "ratio": node.get("ratio", 0.9)}
    if ratio is not None:
        node = {**node, "ratio": ratio, "schedule": None} if "schedule" in node else {**node, "ratio": ratio}
    return build(node, trust)


def read(path: str | Path) -> Source:
    """The contents of a file or directory, or `timm:NAME`. Raises ValueError if there is none of an allowed format."""
    if str(path).startswith(TIMM):
        return read_timm(str(path))
    found = find(path)
    return next(format for format in FORMATS if format.reads(found)).read(found)


def _place_weights(model: Model, source: Source, new_task: bool, trust: Collection[str]) -> Report:
    state, new = source.state, model.grid
    dropped: tuple[str, ...] = ()
    if isinstance(model, Encoder):
        dropped = tuple(sorted(key for key in state if key.startswith(TASK_PARTS)))  # of a classifier without a head
        # the names of a bare encoder have no prefix
        state = {key.removeprefix("encoder."): value for key, value in state.items() if key not in dropped}
    report = place(model, state, _native_grid(source, new, trust), new, source.name, new_task)
    return replace(report, dropped=report.dropped + dropped)


def _native_grid(source: Source, new: ClipGrid, trust: Collection[str]) -> ClipGrid:
    """The clip size that the weights were trained with; if the file does not contain it, the clip size of the model."""
    known = arguments(source.encoder, trust)
    size, frames = known.get("image_size"), known.get("num_frames")
    height, width = (new.height, new.width) if size is None else sides(size)
    return replace(new, frames=frames or new.frames, height=height, width=width)


def _task(node: Node) -> tuple[str, Any]:
    return node["_target_"], node.get("num_classes")


_ENCODER_SETTINGS = ("dim", "depth", "num_heads", "patch_size", "tubelet_size", "act")
_DECODER_SETTINGS = ("num_heads", "act")
_PIXEL_SETTINGS = ("mean", "std", "scale", "offset")


def _check_settings(model: Model, node: Node, source: Source, trust: Collection[str]) -> None:
    """Compare settings that do not show in the tensors, but with which the same weights compute something else, and the
    sizes of the encoder, of which every tensor would be reported.

    Raises ValueError naming the settings that differ.
    """
    parts = {
        "encoder": (node.get("encoder", node), source.encoder, _ENCODER_SETTINGS),
        "preprocess": (node.get("preprocess"), source.node.get("preprocess"), _PIXEL_SETTINGS),
    }
    if node.get("_target_") == source.node.get("_target_"):  # the same task: its decoder is loaded, too
        parts["decoder"] = (node.get("decoder"), source.node.get("decoder"), _DECODER_SETTINGS)
    for part, (new, old, names) in parts.items():
        if not old or not new:
            continue
        known, ours = arguments(old, trust), arguments(new, trust)
        built = getattr(model, part, None)
        # None in the config: the model has derived the value
        after = {name: getattr(built, name, None) if ours.get(name) is None else ours[name] for name in names}
        differ = [name for name in names if _differ(known.get(name), after[name])]
        if differ:
            said = "; ".join(f"{name} {_listed(known[name])}, this model has {_listed(after[name])}" for name in differ)
            remedy = ", ".join(f"{part}.{name} to {_listed(known[name])}" for name in differ)
            remedy += ", or leave `encoder=` out and it is taken from the weights" if part == "encoder" else ""
            raise ValueError(f"{source.name} was trained with {said}: set {remedy}")


def _differ(before: Any, after: Any) -> bool:
    """Whether both are known, and are not the same."""
    return None not in (before, after) and _listed(before) != _listed(after)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
