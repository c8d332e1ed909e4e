"""The directory of what transformers has no class for: every model comes back as it was, and no pickle."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tubelet.config.compose import build_model
from tubelet.data.transforms import Preprocess
from tubelet.decoders.cross_attention import CrossAttentionDecoder
from tubelet.decoders.self_attention import SelfAttentionDecoder
from tubelet.encoders.base import Encoder
from tubelet.encoders.timesformer import TimeSformer
from tubelet.encoders.vit import VideoViT
from tubelet.encoders.vivit import FactorisedViViT, ViViT
from tubelet.masking import Mask
from tubelet.models.classifier import VideoClassifier
from tubelet.models.masked import MaskedModel
from tubelet.nodes import build, describe
from tubelet.targets.features import Features
from tubelet.targets.hog import HOG
from tubelet.weights.formats.directory import MODEL_TYPE
from tubelet.weights.load import load_encoder, load_masking, load_model
from tubelet.weights.save import convert, save_pretrained

SMALL: dict[str, Any] = {"image_size": 32, "num_frames": 4, "dim": 24, "depth": 2, "num_heads": 2}
OWN_PIXELS = Preprocess(mean=[0.1] * 3, std=[0.3] * 3, offset=0.25, size=[40, 48], interpolation="bicubic", stride=3)


def regression() -> VideoClassifier:
    model = VideoClassifier(ViViT(**SMALL), 2, "regression", pool="cls")
    model.set_units([3.0, -1.0], [2.0, 0.5])
    return model


def without_norm() -> VideoClassifier:
    """As `load_encoder` leaves the encoder of a classifier that normalises after its pool."""
    encoder = ViViT(**SMALL)
    encoder.norm = nn.Identity()
    return VideoClassifier(encoder, 3, id2label={0: "a", 1: "b", 2: "c"})


def bare_without_norm() -> Encoder:
    encoder = TimeSformer(**SMALL)
    encoder.norm = nn.Identity()
    return encoder


def frozen_teacher(encoder: Encoder, preprocess: Preprocess) -> Features:
    teacher = {
        "source": "somewhere", "encoder": partial(ViViT, dim=12, depth=1, num_heads=2), "preprocess": OWN_PIXELS,
        "patch": 16, "tubelet": 2, "normed": False,
    }  # fmt: skip
    return Features(encoder, preprocess, teacher=[teacher])


MODELS: dict[str, Callable[[], Any]] = {
    "layer scale and cosine attention": lambda: VideoViT(**SMALL, layer_scale=0.1, cosine_attention=True),
    "frames that are not square": lambda: TimeSformer(**SMALL | {"image_size": (32, 48)}),
    "space only": lambda: TimeSformer(**SMALL, attention_type="space_only"),
    "factorised": lambda: FactorisedViViT(**SMALL, temporal_depth=1),
    "bare without norm": bare_without_norm,
    "without norm": without_norm,
    "attentive pool": lambda: VideoClassifier(
        ViViT(**SMALL), 3, pool="attentive", pool_heads=2, pool_depth=2, preprocess=OWN_PIXELS
    ),
    "norm after pool": lambda: VideoClassifier(TimeSformer(**SMALL), 3, pool="mean", norm_after_pool=True),
    "regression": regression,
    "masked ViViT": lambda: MaskedModel(ViViT(**SMALL), preprocess=OWN_PIXELS),
    "cross decoder, HOG": lambda: MaskedModel(
        VideoViT(**SMALL), partial(CrossAttentionDecoder, dim=24, depth=1, num_heads=2, predict=0.5),
        partial(HOG, bins=6),
    ),
    "moving average": lambda: MaskedModel(
        TimeSformer(**SMALL), lambda e, dim: SelfAttentionDecoder(e, dim, 24, 1, num_heads=2), Features
    ),
    "frozen teacher": lambda: MaskedModel(VideoViT(**SMALL), target=frozen_teacher),
}  # fmt: skip


def outputs(model: Any) -> list[torch.Tensor]:
    grid = (model if isinstance(model, Encoder) else model.encoder).grid
    clip = torch.randn(2, 3, grid.frames, grid.height, grid.width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if isinstance(model, MaskedModel):
            hidden = torch.arange(grid.N).expand(2, -1) % (grid.h * grid.w) > 1
            torch.manual_seed(0)
            return list(model(clip, Mask.from_hidden(hidden)))
        return [model(clip)]


def scrambled(model: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("format", ["auto", "tubelet"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_comes_back(name: str, format: Any, tmp_path: Path) -> None:
    model = scrambled(MODELS[name]())
    reason = save_pretrained(model, tmp_path, format)
    own = json.loads((tmp_path / "config.json").read_text())["model_type"] == MODEL_TYPE
    assert own == (reason is not None)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    loaded = load_model(tmp_path)
    assert type(loaded) is type(model)
    for a, b in zip(outputs(model), outputs(loaded), strict=True):
        if own:
            assert torch.equal(a, b)
        else:  # transformers has no units: they are multiplied into the head
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    if not isinstance(model, Encoder):
        assert loaded.preprocess == model.preprocess or not own
        encoder = load_encoder(tmp_path)
        assert all(torch.equal(value, encoder.state_dict()[key]) for key, value in model.encoder.state_dict().items())
    if isinstance(model, VideoClassifier):
        assert (loaded.id2label, loaded.problem) == (model.id2label, model.problem)


def test_most_of_them_are_what_transformers_cannot_hold(tmp_path: Path) -> None:
    can = [name for name, make in MODELS.items() if save_pretrained(make(), tmp_path / "x") is None]
    assert can == ["space only", "regression"]
    assert save_pretrained(MODELS["factorised"](), tmp_path / "x") == (
        "the Hugging Face format cannot hold a FactorisedViViT"
    )
    with pytest.raises(ValueError, match="unknown format 'onnx', expected auto, transformers or tubelet"):
        save_pretrained(MODELS["factorised"](), tmp_path / "x", "onnx")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a Linear is no model of tubelet"):
        save_pretrained(nn.Linear(2, 2), tmp_path / "x", "tubelet")


def test_what_a_model_is_described_by_builds_it_again() -> None:
    """Also where the config gives what Python would: described, built and described again, it is the same."""
    small = [f"encoder.{key}={value}" for key, value in SMALL.items()]
    masked = build_model("experiment=demo_pretrain", *small, "encoder.dim=32", "target=motion")
    node = describe(masked)
    assert describe(build(node)) == node
    assert node["target"]["_partial_"] is node["decoder"]["_partial_"] is True
    assert "encoder" not in node["decoder"]


def test_changed_settings_of_an_own_directory(tmp_path: Path) -> None:
    save_pretrained(scrambled(MODELS["without norm"]()), tmp_path, "tubelet")
    assert load_model(tmp_path, num_frames=8).grid.frames == 8
    assert load_model(tmp_path, num_classes=5).num_classes == 5
    assert load_model(tmp_path, preprocess={"stride": 7}).preprocess.stride == 7


def test_a_converted_run_keeps_its_masking(tmp_path: Path) -> None:
    node = describe(MODELS["masked ViViT"]())
    masking = {"_target_": "tubelet.masking.frame", "_partial_": True, "ratio": 0.5}
    contents = {"model_config": node, "masking_config": masking, "state_dict": build(node).state_dict()}
    torch.save(contents, tmp_path / "x.ckpt")
    convert(tmp_path / "x.ckpt", tmp_path / "converted")
    assert load_masking(tmp_path / "converted").keywords == {"ratio": 0.5}


OWN_CODE = """
from tubelet.encoders.vit import VideoViT

class Wider(VideoViT):
    def __init__(self, factor=1, **settings):
        super().__init__(**{**settings, "dim": factor * settings["dim"]})
"""


def test_an_own_class_needs_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_package.py").write_text(OWN_CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_package", raising=False)
    import their_package

    model = VideoClassifier(their_package.Wider(factor=2, **SMALL), 3).eval()
    save_pretrained(model, tmp_path / "model")
    with pytest.raises(ValueError, match="if you trust the package 'their_package'"):
        load_model(tmp_path / "model")
    loaded = load_model(tmp_path / "model", trust=["their_package"])
    assert torch.equal(loaded.head.weight, model.head.weight)
    assert loaded.encoder.dim == 48


def test_damaged_directories_are_named(tmp_path: Path) -> None:
    save_pretrained(MODELS["factorised"](), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model": "tubelet.encoders.vit.VideoViT"}))
    with pytest.raises(ValueError, match=r"config.json lacks 'model', the description of the model"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"model": {"_target_": "os.system", "command": "ls"}}))
    with pytest.raises(ValueError, match="a file may not import code by itself"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"holds no model.safetensors"):
        load_model(tmp_path)
