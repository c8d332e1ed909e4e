"""One function for weights of any origin: read what the file holds, build that model, put the weights in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import timm

from tubelet.clip import ClipGrid
from tubelet.encoders.base import Encoder, sides
from tubelet.models.classifier import VideoClassifier
from tubelet.models.mae import MaskedAutoencoder
from tubelet.weights import checkpoint, huggingface, mcg_nju
from tubelet.weights.build import Node, arguments, build, class_of
from tubelet.weights.overrides import override
from tubelet.weights.place import Report, place
from tubelet.weights.sharded import is_sharded, read_sharded
from tubelet.weights.source import Source, State, read_torch_file
from tubelet.weights.timm_vit import inflate

_TIMM = "timm:"
Model = MaskedAutoencoder | VideoClassifier | Encoder


def load_model(path: str | Path, **overrides: Any) -> Any:
    """A MaskedAutoencoder, VideoClassifier or encoder in eval mode, float32, on the CPU.

    Args:
        path: a run directory or `.ckpt` of ours, a Hugging Face directory or hub id (`owner/name`), or a VideoMAE or
            VideoMAEv2 `.pth`.
        overrides: what the file does not say or should change: num_heads, decoder_num_heads, image_size, num_frames,
            num_classes (a fresh head unless the file has that many classes), norm_pix_loss, drop_path, dtype.

    Raises ValueError, naming the file, if it is of no known kind, does not fit, or leaves open what must be said.
    """
    source = read(path)
    node = override(source.node, source.name, **overrides)
    model = _build(node)
    report = _fill(model, source, new_task=_task(node) != _task(source.node))
    if report.dropped or report.fresh:
        print(f"{source.name}: {report}")
    return model.to(overrides.get("dtype")).eval()


def _build(node: Node) -> Any:
    """Models own their preprocessing; a bare encoder just carries it along."""
    if issubclass(class_of(node), Encoder):
        model = build({key: value for key, value in node.items() if key != "preprocess"})
        model.preprocess = build(node["preprocess"])
        return model
    return build(node)


def start_from(model: Model, path: str | Path, new_task: bool = True) -> Report:
    """Initialise a model of the caller's from weights of any origin, and print what was taken, dropped and fresh.

    `timm:NAME` inflates an image ViT of timm. Without `new_task` nothing may be dropped or fresh. Raises ValueError if
    the weights do not fit, or if the model differs in a setting that the tensors do not show.
    """
    if str(path).startswith(_TIMM):
        encoder = model if isinstance(model, Encoder) else model.encoder
        report = inflate(encoder, timm.create_model(str(path).removeprefix(_TIMM), pretrained=True))
        print(f"{path}: {report}")
        return report
    source = read(path)
    _check_same_sums(model, source)
    report = _fill(model, source, new_task)
    print(f"{source.name}: {report}")
    return report


def read(path: str | Path) -> Source:
    """What a file or directory holds. Raises ValueError if there is none, or it is of no known kind."""
    path = Path(path)
    if path.is_dir() and not is_sharded(path):
        if (path / "config.json").is_file():
            return huggingface.read(path)
        if (found := checkpoint.find(path)) is None:
            raise ValueError(f"{path} holds neither config.json nor checkpoints/best.ckpt or checkpoints/last.ckpt")
        path = found
    if not path.exists():
        return huggingface.read(huggingface.download(_hub_id(path)))
    contents = read_sharded(path) if path.is_dir() else read_torch_file(path)
    reader = checkpoint if checkpoint.is_ours(contents) else mcg_nju
    return reader.from_contents(path, contents)


def _hub_id(path: Path) -> str:
    """Raises ValueError if a path that does not exist cannot be meant as a hub id, `owner/name`."""
    if path.suffix in (".ckpt", ".pth", ".pt", ".bin", ".safetensors") or path.is_absolute() or len(path.parts) != 2:
        raise ValueError(f"{path} does not exist")
    return path.as_posix()


def _fill(model: Model, source: Source, new_task: bool) -> Report:
    new = model.grid
    return place(model, _for(model, source.state), _native_grid(source, new), new, source.name, new_task)


def _for(model: Model, state: State) -> State:
    """A bare encoder has no prefix before its names."""
    if not isinstance(model, Encoder):
        return state
    return {key.removeprefix("encoder."): value for key, value in state.items()}


def _native_grid(source: Source, new: ClipGrid) -> ClipGrid:
    """The clip size the weights were trained with; where a file does not tell, that of the model."""
    told = arguments(source.encoder)
    height, width = (new.height, new.width) if told["image_size"] is None else sides(told["image_size"])
    return replace(new, frames=told["num_frames"] or new.frames, height=height, width=width)


def _task(node: dict[str, Any]) -> tuple[str, Any]:
    return node["_target_"], node.get("num_classes")


def _check_same_sums(model: Model, source: Source) -> None:
    """Settings that the tensors do not show, but without which the same weights compute something else."""
    encoder = model if isinstance(model, Encoder) else model.encoder
    theirs, block = arguments(source.encoder), encoder.blocks[0]
    pairs = {"num_heads": (theirs["num_heads"], block.attn.num_heads), "act": (theirs["act"], block.mlp.act)}
    if isinstance(model, MaskedAutoencoder) and (heads := source.node.get("decoder_heads")) is not None:
        pairs["decoder_heads"] = (heads, model.decoder.blocks[0].attn.num_heads)
    if source.node.get("preprocess") and not isinstance(model, Encoder):
        old, new = build(source.node["preprocess"]), model.preprocess
        pairs |= {name: (getattr(old, name), getattr(new, name)) for name in ("mean", "std", "scale", "offset")}
    for name, (old, new) in pairs.items():
        if old is not None and old != new:
            raise ValueError(f"{source.name} was trained with {name} {old}, this model has {new}: set {name} to {old}")
