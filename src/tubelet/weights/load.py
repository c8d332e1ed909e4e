"""One function for weights of any origin: find them, read what they hold, build that model, put the weights in."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from tubelet.clip import ClipGrid
from tubelet.encoders.base import Encoder, sides
from tubelet.masking import MaskGenerator, generators
from tubelet.models.base import VideoModel
from tubelet.nodes import Node, arguments, build, trusted_target
from tubelet.weights.find import find
from tubelet.weights.formats.base import Format
from tubelet.weights.formats.huggingface import HuggingFace
from tubelet.weights.formats.mcg_nju import Original
from tubelet.weights.formats.tubelet import Checkpoint
from tubelet.weights.overrides import override
from tubelet.weights.place import Report, place
from tubelet.weights.source import Source

FORMATS: tuple[Format, ...] = (HuggingFace(), Checkpoint(), Original())
_TIMM = "timm:"
Model = VideoModel | Encoder


def load_model(path: str | Path, *, trust: Collection[str] = (), **overrides: Any) -> Any:
    """A MaskedModel, VideoClassifier or encoder in eval mode, float32, on the CPU; or a model of a trusted package.

    Args:
        path: a run directory or `.ckpt` of ours, a Hugging Face directory or hub id (`owner/name`), or a VideoMAE or
            VideoMAEv2 `.pth`.
        trust: packages whose classes the file may name, besides tubelet: `["my_package"]`.
        overrides: what the file does not say or should change: num_heads, decoder_num_heads, image_size, num_frames,
            num_classes (a fresh head unless the file has that many classes), norm_pix_loss, drop_path, dtype.

    Raises ValueError, naming the file, if it is of no known kind, does not fit, names a class of a package that is not
    trusted, or leaves open what must be said.
    """
    source = read(path)
    node = override(source.node, source.name, trust, **overrides)
    return _loaded(source, node, trust, new_task=_task(node) != _task(source.node)).to(overrides.get("dtype"))


def load_encoder(path: str | Path, *, trust: Collection[str] = (), **overrides: Any) -> Encoder:
    """The encoder alone, with its `preprocess`, whatever it was trained with: nothing else of the model is built."""
    source = read(path)
    node = override(source.node, source.name, trust, **overrides)
    alone = {**node.get("encoder", node), "preprocess": node.get("preprocess")}
    if "encoder" in node:
        state = {key: value for key, value in source.state.items() if key.startswith("encoder.")}
        source = replace(source, state=state)
    encoder: Encoder = _loaded(source, alone, trust, new_task=True)
    return encoder.to(overrides.get("dtype"))


def _loaded(source: Source, node: Node, trust: Collection[str], new_task: bool) -> Any:
    model = _built(node, source.name, trust)
    report = _fill(model, source, new_task, trust)
    if report.dropped or report.fresh:
        print(f"{source.name}: {report}")
    return model.eval()


def _built(node: Node, name: str, trust: Collection[str]) -> Any:
    """Models own their preprocessing; a bare encoder just carries it along."""
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
    """Initialise a model of the caller's from weights of any origin, and print what was taken, dropped and fresh.

    `timm:NAME` inflates an image ViT of timm. Without `new_task` nothing may be dropped or fresh. `node` describes the
    model: with it, settings that the tensors do not show are compared. Raises ValueError if the weights do not fit, or
    if such a setting differs.
    """
    if str(path).startswith(_TIMM):
        import timm

        from tubelet.weights.timm_vit import inflate

        encoder = model if isinstance(model, Encoder) else model.encoder
        report = inflate(encoder, timm.create_model(str(path).removeprefix(_TIMM), pretrained=True))
        print(f"{path}: {report}")
        return report
    source = read(path)
    if node is not None:
        _compare(model, node, source, trust)
    report = _fill(model, source, new_task, trust)
    print(f"{source.name}: {report}")
    return report


def load_masking(
    path: str | Path, name: str | None = None, ratio: float | None = None, *, trust: Collection[str] = ()
) -> MaskGenerator:
    """The masking a run was trained with; `name` (of tubelet.masking, or a Python path) and `ratio` replace its own.
    For weights that do not say: tubes, 0.9. Raises ValueError for a name that does not exist.
    """
    node: Node = read(path).masking or {"_target_": "tubelet.masking.tube", "_partial_": True, "ratio": 0.9}
    if name is not None:
        known = generators()
        if "." not in name and name not in known:
            raise ValueError(f"unknown masking '{name}', expected one of {', '.join(known)}, or a Python path")
        target = f"tubelet.masking.{name}" if name in known else name
        node = {"_target_": target, "_partial_": True, "ratio": node.get("ratio", 0.9)}
    if ratio is not None:
        node = {**node, "ratio": ratio}
    return build(node, trust)


def read(path: str | Path) -> Source:
    """What a file or directory holds. Raises ValueError if there is none, or it is of no known kind."""
    found = find(path)
    return next(format for format in FORMATS if format.reads(found)).read(found)


def _fill(model: Model, source: Source, new_task: bool, trust: Collection[str]) -> Report:
    state, new = source.state, model.grid
    if isinstance(model, Encoder):  # alone, it has no prefix before its names
        state = {key.removeprefix("encoder."): value for key, value in state.items()}
    return place(model, state, _native_grid(source, new, trust), new, source.name, new_task)


def _native_grid(source: Source, new: ClipGrid, trust: Collection[str]) -> ClipGrid:
    """The clip size the weights were trained with; where a file does not tell, that of the model."""
    known = arguments(source.encoder, trust)
    size, frames = known.get("image_size"), known.get("num_frames")
    height, width = (new.height, new.width) if size is None else sides(size)
    return replace(new, frames=frames or new.frames, height=height, width=width)


def _task(node: Node) -> tuple[str, Any]:
    return node["_target_"], node.get("num_classes")


_RESULTS = ("num_heads", "act")
_PIXELS = ("mean", "std", "scale", "offset")


def _compare(model: Model, node: Node, source: Source, trust: Collection[str]) -> None:
    """Settings that the tensors do not show, but without which the same weights compute something else.

    Raises ValueError naming the first that differs.
    """
    mine = {"encoder": node.get("encoder", node), "preprocess": node.get("preprocess")}
    theirs = {"encoder": source.encoder, "preprocess": source.node.get("preprocess")}
    if node.get("_target_") == source.node.get("_target_"):  # the same task keeps its decoder
        mine["decoder"], theirs["decoder"] = node.get("decoder"), source.node.get("decoder")
    for part in mine:
        old, new = theirs[part], mine[part]
        if not old or not new:
            continue
        known, ours = arguments(old, trust), arguments(new, trust)
        built = getattr(model, part, None)
        for name in _PIXELS if part == "preprocess" else _RESULTS:
            after = getattr(built, name, None) if ours.get(name) is None else ours[name]  # None: the model has chosen
            before, after = (list(v) if isinstance(v, list | tuple) else v for v in (known.get(name), after))
            if None not in (before, after) and before != after:
                raise ValueError(
                    f"{source.name} was trained with {name} {before}, this model has {after}: "
                    f"set {part}.{name} to {before}"
                )
