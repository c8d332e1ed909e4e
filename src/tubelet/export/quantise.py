"""An .onnx with 8-bit weights (dynamic quantisation), and what that costs on real videos."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from tubelet.data.dataset import EvaluationVideos
from tubelet.data.manifest import ONE_CLASS, Manifest
from tubelet.export.function import Exported
from tubelet.export.runners import ABOUT, Runner, run_onnx
from tubelet.models.base import encoder_of


def quantise(source: Path, path: Path) -> None:
    """Write `path`: the matrix products of `source` with int8 weights, activations quantised as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(max(logging.getLogger().level, logging.ERROR))
    quantize_dynamic(source, path, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
    model = onnx.load(path)
    if not any(each.key == ABOUT for each in model.metadata_props):
        about = next(each.value for each in onnx.load(source).metadata_props if each.key == ABOUT)
        onnx.helper.set_model_props(model, {ABOUT: json.dumps(json.loads(about))})
        onnx.save(model, path)


def loss_of_accuracy(function: Exported, before: Path, after: Path, manifest: Path) -> str:
    """One line: what both files say of the clip in the middle of each video of a manifest.

    Raises VideoError for a video that cannot be read.
    """
    first, second, labels = _outputs(function, run_onnx(before), run_onnx(after), manifest)
    if function.output == "logits" and function.model.problem == ONE_CLASS:
        same = (first.argmax(1) == second.argmax(1)).float().mean()
        known = labels >= 0
        if known.any():
            scores = [(each.argmax(1) == labels)[known].float().mean() for each in (first, second)]
            return (
                f"int8 on {int(known.sum())} videos: top-1 {scores[1]:.2%}, float {scores[0]:.2%} "
                f"({scores[1] - scores[0]:+.2%}); the same answer for {same:.2%}"
            )
        return f"int8 on {len(first)} videos without labels: the same answer for {same:.2%}"
    cosine = F.cosine_similarity(first.flatten(1), second.flatten(1))
    return f"int8 on {len(first)} videos: cosine with float {cosine.mean():.4f}, at least {cosine.min():.4f}"


def _outputs(function: Exported, before: Runner, after: Runner, manifest: Path) -> tuple[Tensor, Tensor, Tensor]:
    videos = Manifest.read(manifest)
    preprocess, grid = function.preprocess, encoder_of(function.model).grid
    dataset = EvaluationVideos(videos, grid, preprocess.frames(), seed=0, preprocess=preprocess)
    rows: list[tuple[Tensor, Tensor]] = []
    labels = []
    for index in track(range(len(videos)), f"int8 on {len(videos)} videos"):
        sample = dataset[0, index]
        assert sample is not None
        clip = sample.clips.contiguous() if function.uint8 else preprocess.normalise(sample.clips)
        rows.append((before(clip), after(clip)))
        label = videos.record(index).label
        labels.append(-1 if label is None else label)
    first, second = (torch.cat(each) for each in zip(*rows, strict=True))
    return first, second, torch.tensor(labels)
