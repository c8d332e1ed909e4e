"""Exported files are run as other programs run them, and compute what the model does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tubelet.data.labels import Labels
from tubelet.data.load_clip import load_clip
from tubelet.data.transforms import Preprocess
from tubelet.encoders.base import Encoder
from tubelet.encoders.timesformer import TimeSformer
from tubelet.encoders.vit import VideoViT
from tubelet.encoders.vivit import ViViT
from tubelet.evaluate.window_features import WindowFeatures
from tubelet.export import check, runners
from tubelet.export.function import Exported
from tubelet.export.quantise import loss_of_accuracy
from tubelet.export.write import export
from tubelet.models.classifier import VideoClassifier
from tubelet.models.masked import MaskedModel

SMALL: dict[str, Any] = {"image_size": 32, "num_frames": 4, "dim": 16, "depth": 1, "num_heads": 2}
VIVIT = Preprocess(mean=[0.5] * 3, std=[0.5] * 3, scale=1 / 127.5, offset=1.0)
NAMES = {0: "zero", 1: "one", 2: "two"}


def scrambled(model: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def classifier() -> VideoClassifier:
    return scrambled(VideoClassifier(ViViT(**SMALL), 3, pool="cls", id2label=NAMES, preprocess=VIVIT))


def encoder() -> Encoder:
    made = scrambled(TimeSformer(**SMALL))
    made.preprocess = Preprocess()
    return made


@pytest.mark.slow
def test_a_classifier_as_pt2(tmp_path: Path) -> None:
    model, file = classifier(), tmp_path / "x.pt2"
    (line,) = export(model, file, dynamic=True, uint8=True)
    assert line.startswith("pt2: largest difference 0.0e+00 with batches of 1 and 3; ")
    extra = {runners.ABOUT: ""}
    program = torch.export.load(file, extra_files=extra).module()
    pixels = torch.randint(256, (5, 3, 4, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(program(pixels), model(VIVIT.normalise(pixels)))
    about = json.loads(extra[runners.ABOUT])
    assert (about["labels"], about["problem"]) == (["zero", "one", "two"], "single_label_classification")
    assert (about["input"], about["offset"], about["clip"]) == ("uint8 clip [B,C,T,H,W]", 1.0, [4, 32, 32])
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt2"]


@pytest.mark.slow
def test_a_classifier_as_onnx(tmp_path: Path, videos: Path) -> None:
    """On a real video, with float32 and with 8-bit weights."""
    onnx = pytest.importorskip("onnx", reason="the extra `export`")
    pytest.importorskip("onnxruntime", reason="the extra `export`")
    model, file = classifier(), tmp_path / "x.onnx"
    export(model, file, dynamic=True)
    clip = load_clip(videos.parent / "0.mp4", model)
    run = runners.run_onnx(file)
    with torch.no_grad():
        assert (run(clip.repeat(4, 1, 1, 1, 1)) - model(clip)).abs().max() < 1e-5
    lines = export(model, tmp_path / "small.onnx", dynamic=True, int8=videos)
    assert "int8 on 6 videos: top-1 " in lines[1]
    assert "the same answer for " in lines[1]
    loaded = onnx.load(tmp_path / "small.onnx")
    assert any(node.op_type == "MatMulInteger" for node in loaded.graph.node)
    (about,) = [each.value for each in loaded.metadata_props if each.key == runners.ABOUT]
    assert json.loads(about)["labels"] == ["zero", "one", "two"]
    again = loss_of_accuracy(Exported(model), file, tmp_path / "small.onnx", videos)
    assert lines[1].startswith(again)
    numbers = Exported(model)
    numbers.model.labels = Labels("regression", 3)  # the largest of several numbers is no answer
    assert "cosine with float" in loss_of_accuracy(numbers, file, tmp_path / "small.onnx", videos)


@pytest.mark.slow
def test_the_encoder_of_a_masked_model_and_its_windows(tmp_path: Path) -> None:
    model = scrambled(MaskedModel(VideoViT(**SMALL | {"depth": 2})))
    export(model, tmp_path / "tokens.pt2")
    export(model, tmp_path / "windows.pt2", output="features", layers=[1, 2], pool="spatial", uint8=True, dynamic=True)
    pixels = torch.randint(256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    clip = model.preprocess.normalise(pixels)
    with torch.no_grad():
        assert torch.equal(runners.run_pt2(tmp_path / "tokens.pt2")(clip[:1]), model.encoder(clip[:1]))
    expected = WindowFeatures(model.encoder, model.preprocess, [1, 2], "spatial")(pixels.permute(0, 2, 3, 4, 1))
    assert torch.equal(runners.run_pt2(tmp_path / "windows.pt2")(pixels), expected)


@pytest.mark.slow
def test_half(tmp_path: Path) -> None:
    model = encoder()
    export(model, tmp_path / "whole.pt2")
    (line,) = export(model, tmp_path / "half.pt2", half=True)
    assert float(line.split("largest difference ")[1].split()[0]) > 0
    sizes = [(tmp_path / f"{name}.pt2").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < sizes[1]
    assert next(model.parameters()).dtype == torch.float32  # the model itself stays as it is
    assert runners.run_pt2(tmp_path / "half.pt2")(torch.randn(1, 3, 4, 32, 32)).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
@pytest.mark.parametrize(
    ("make", "output", "half"),
    [(VideoViT, "logits", True), (ViViT, "tokens", False), (TimeSformer, "features", False)],
)
def test_every_system(make: type[Encoder], output: Any, half: bool, ending: str, tmp_path: Path) -> None:
    """The export compares the file with the model itself."""
    if ending == ".onnx":
        pytest.importorskip("onnxruntime", reason="the extra `export`")
    model = scrambled(VideoClassifier(make(**SMALL), 3, pool="mean", norm_after_pool=True))
    export(model, tmp_path / f"x{ending}", output=output, dynamic=True, half=half)


class Wrong(nn.Module):
    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return torch.zeros(clip.shape[0], 3)


def test_a_file_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(check.RUNNERS, ".pt2", lambda path: Wrong())
    (tmp_path / "x.pt2").write_text("of yesterday")
    with pytest.raises(ValueError, match="the exported file differs from the model by"):
        export(classifier(), tmp_path / "x.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt2"]
    assert (tmp_path / "x.pt2").read_text() == "of yesterday"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("x.h5", {}, r"cannot write '.*x.h5': the ending must be .onnx or .pt2"),
        ("x.pt2", {"output": "logits"}, "a TimeSformer has no logits: export tokens or features"),
        ("x.pt2", {"output": "scores"}, "unknown output 'scores', expected one of logits, tokens, features"),
        ("x.pt2", {"layers": [1]}, "layers and pool are of output=features, the output is tokens"),
        ("x.pt2", {"output": "features", "layers": [9]}, "layer 9 does not exist: the encoder has the blocks 1 to 1"),
        ("x.pt2", {"int8": Path("x.csv")}, "8-bit weights are written as an .onnx"),
    ],
)
def test_what_cannot_be_exported(name: str, settings: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        export(encoder(), tmp_path / name, **settings)
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"pip install 'tubelet\[export\]'"):
        export(encoder(), tmp_path / "x.onnx")
