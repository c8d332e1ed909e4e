"""tubelet: self-supervised pretraining on video. The public functions, imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tubelet.version import __version__ as __version__

if TYPE_CHECKING:
    from tubelet.config.compose import build_model as build_model
    from tubelet.data.load_clip import load_clip as load_clip
    from tubelet.evaluate.predict import predict as predict
    from tubelet.evaluate.stream import stream as stream
    from tubelet.masking import Mask as Mask
    from tubelet.study import train as train
    from tubelet.weights.load import load_model as load_model
    from tubelet.weights.save import save_pretrained as save_pretrained

_HOMES = {
    "Mask": "tubelet.masking",
    "build_model": "tubelet.config.compose",
    "load_clip": "tubelet.data.load_clip",
    "load_model": "tubelet.weights.load",
    "predict": "tubelet.evaluate.predict",
    "save_pretrained": "tubelet.weights.save",
    "stream": "tubelet.evaluate.stream",
    "train": "tubelet.study",
}
__all__ = [
    "Mask", "__version__", "build_model", "load_clip", "load_model", "predict", "save_pretrained", "stream", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tubelet' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
