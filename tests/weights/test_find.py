"""What others put around weights: folders, file names, tables within tables, prefixes, parts of a model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tubelet.encoders.vit import VideoViT
from tubelet.models.classifier import VideoClassifier
from tubelet.weights.load import load_encoder, load_model, start_from
from tubelet.weights.save import save_pretrained

GOLDEN = Path(__file__).parents[1] / "golden"
SIZES: dict[str, Any] = {"image_size": 48, "num_heads": 3}
SMALL: dict[str, Any] = {"image_size": 32, "num_frames": 2, "dim": 24, "depth": 1, "num_heads": 2}


def original(name: str = "finetune") -> dict[str, Tensor]:
    """Weights of the original code."""
    return torch.load(GOLDEN / f"videomae_{name}.pth", weights_only=True)["model"]


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A Hugging Face directory."""
    save_pretrained(VideoClassifier(VideoViT(**SMALL, final_norm=False), 3), tmp_path / "model")
    return tmp_path / "model"


WRAPPED = {
    "state_dict": lambda w: {"state_dict": w, "epoch": 3},
    "model_state": lambda w: {"model_state": w, "optimizer_state": {"state": {0: {"exp_avg": torch.zeros(2)}}}},
    "two levels": lambda w: {"checkpoint": {"model_state_dict": w}},
    "teacher and student": lambda w: {"student": {key: value + 1 for key, value in w.items()}, "teacher": w},
    "model and its average": lambda w: {"model_ema": {key: value + 1 for key, value in w.items()}, "model": w},
    "DataParallel": lambda w: {"state_dict": {f"module.{key}": value for key, value in w.items()}},
    "compiled Lightning": lambda w: {"state_dict": {f"model._orig_mod.{key}": value for key, value in w.items()}},
    "a name of its own": lambda w: {f"net.video_encoder.{key}": value for key, value in w.items()},
    "DataParallel within": lambda w: {f"net.module.{key}": value for key, value in w.items()},
    "beside other tensors": lambda w: {"weights": w, "mean": torch.zeros(3)},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("name", ["finetune", "pretrain"])
def test_wrappers_are_taken_off(name: str, wrap: Any, tmp_path: Path) -> None:
    sizes = SIZES | ({"decoder_num_heads": 3} if name == "pretrain" else {})
    torch.save(wrap(original(name)), tmp_path / "x.pth")
    assert equal(load_model(GOLDEN / f"videomae_{name}.pth", **sizes), load_model(tmp_path / "x.pth", **sizes))


def test_a_head_beside_a_wrapped_encoder(tmp_path: Path) -> None:
    for prefix in ("backbone.", "encoder."):
        weights = {key if key.startswith(("fc_", "head")) else prefix + key: v for key, v in original().items()}
        torch.save(weights, tmp_path / "x.pth")
        assert equal(load_model(GOLDEN / "videomae_finetune.pth", **SIZES), load_model(tmp_path / "x.pth", **SIZES))


def test_several_models_in_one_file_are_named(tmp_path: Path) -> None:
    torch.save({"a": original(), "b": original()}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x.pth holds several models, under a, b: save one"):
        load_model(tmp_path / "x.pth", **SIZES)
    torch.save({f"{side}.{k}": v for k, v in original().items() for side in ("left", "right")}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x.pth holds several models in one table \(left\., right\.\): save one"):
        load_model(tmp_path / "x.pth", **SIZES)


@pytest.mark.parametrize("name", ["finetune", "pretrain"])
def test_an_encoder_alone(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a file lacks is not missed: neither head nor decoder."""
    whole = load_encoder(GOLDEN / f"videomae_{name}.pth", **SIZES)
    weights = {key: value for key, value in original(name).items() if not key.startswith(("head.", "mask_token"))}
    weights = {key: value for key, value in weights.items() if "decoder" not in key}
    torch.save(weights, tmp_path / "x.pth")
    capsys.readouterr()
    alone = load_model(tmp_path / "x.pth", **SIZES)
    assert isinstance(alone, VideoViT)
    assert equal(whole, alone)
    assert equal(whole, load_encoder(tmp_path / "x.pth", **SIZES))
    dropped = re.findall(r"dropped +(\S+)", capsys.readouterr().out)
    assert set(dropped) == ({"fc_norm.bias", "fc_norm.weight"} if name == "finetune" else set())
    classifier = load_model(tmp_path / "x.pth", num_classes=4, **SIZES)
    assert equal(classifier.encoder, whole) or name == "pretrain"
    if name == "finetune":  # its norm after the pool is taken, too
        assert torch.equal(classifier.fc_norm.weight, original()["fc_norm.weight"])


def test_safetensors_of_the_original_code(tmp_path: Path) -> None:
    save_file({key: value.contiguous() for key, value in original().items()}, tmp_path / "x.safetensors")
    assert equal(load_model(GOLDEN / "videomae_finetune.pth", **SIZES), load_model(tmp_path / "x.safetensors", **SIZES))
    (tmp_path / "x.safetensors").rename(tmp_path / "y.pth")  # the content decides
    assert equal(load_model(GOLDEN / "videomae_finetune.pth", **SIZES), load_model(tmp_path / "y.pth", **SIZES))


def test_a_file_beside_a_config_stands_for_their_directory(directory: Path) -> None:
    expected = load_model(directory)
    assert equal(expected, load_model(directory / "model.safetensors"))
    assert equal(expected, load_model(directory / "config.json"))
    other = {key: value + 1 for key, value in load_file(directory / "model.safetensors").items()}
    save_file(other, directory / "epoch_3.safetensors")
    assert torch.equal(load_model(directory / "epoch_3.safetensors").head.bias, expected.head.bias + 1)
    assert torch.equal(load_model(directory).head.bias, expected.head.bias)


def test_one_of_several_parts_stands_for_all(directory: Path) -> None:
    expected, state = load_model(directory), load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    parts = {"model-1.safetensors": sorted(state)[:5], "model-2.safetensors": sorted(state)[5:]}
    for name, keys in parts.items():
        save_file({key: state[key] for key in keys}, directory / name)
    weight_map = {key: name for name, keys in parts.items() for key in keys}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert equal(expected, load_model(directory / "model-2.safetensors"))
    (directory / "model-1.safetensors").unlink()
    with pytest.raises(ValueError, match=r"index.json lists model-1.safetensors, and there is no such file"):
        load_model(directory)


def test_weights_without_their_config_say_so(directory: Path) -> None:
    (directory / "config.json").unlink()
    with pytest.raises(ValueError, match=r"holds model.safetensors, but no config.json"):
        load_model(directory)
    with pytest.raises(
        ValueError, match=r"model.safetensors holds the weights of a Hugging Face model without its siz"
    ):
        load_model(directory / "model.safetensors")


@pytest.mark.parametrize("config", ["{", "[]", "{}"])
def test_a_broken_config_is_named(config: str, directory: Path) -> None:
    (directory / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"config\.json"):
        load_model(directory)


def test_a_mistake_in_a_config_names_the_directory(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"patch_size": [16, 8]}))
    with pytest.raises(ValueError, match=rf"{directory}.*patch_size \[16, 8\] is not square"):
        load_model(directory)


def test_adapters_are_no_model(tmp_path: Path, directory: Path) -> None:
    adapters = {"base_model.model.videomae.encoder.layer.0.attention.attention.query.lora_A.weight": torch.zeros(2, 2)}
    config = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "MCG-NJU/videomae-base"})
    (directory / "model.safetensors").unlink()
    for folder in (tmp_path / "adapters", directory):  # the second has the config.json of its base, too
        folder.mkdir(exist_ok=True)
        (folder / "adapter_config.json").write_text(config)
        save_file(adapters, folder / "adapter_model.safetensors")
        with pytest.raises(ValueError, match=r"holds adapters .*changes to MCG-NJU/videomae-base.*merge_and_unload"):
            load_model(folder)
    with pytest.raises(ValueError, match=r"adapter_model.safetensors holds adapters"):
        load_model(tmp_path / "adapters" / "adapter_model.safetensors")


def test_a_damaged_safetensors_file_is_named(directory: Path) -> None:
    whole = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged or was not copied to its end"):
        load_model(directory)


def test_a_hugging_face_model_within_another_module(directory: Path) -> None:
    expected, path = load_model(directory), directory / "model.safetensors"
    save_file({f"model.{key}": value for key, value in load_file(path).items()}, path)
    assert equal(expected, load_model(directory))


def hub_v2(directory: Path, **settings: Any) -> VideoViT:
    """A directory as OpenGVLab/VideoMAEv2-Base has it: its encoder, with other sizes."""
    torch.manual_seed(0)
    encoder = VideoViT(**SMALL | {"num_heads": 3}, final_norm=False).eval()
    state = {f"model.{key}": value for key, value in encoder.state_dict().items() if key != "positions"}
    state |= {"model.fc_norm.weight": torch.full((24,), 2.0), "model.fc_norm.bias": torch.zeros(24)}
    directory.mkdir()
    save_file(state, directory / "model.safetensors")
    sizes = {
        "img_size": 32,
        "num_frames": 2,
        "num_heads": 3,
        "num_classes": 0,
        "embed_dim": 24,
        "use_mean_pooling": True,
    }
    config = {
        "model_type": "VideoMAEv2_Base", "architectures": ["VideoMAEv2_Base"],
        "auto_map": {"AutoModel": "modeling_videomaev2.VideoMAEv2"}, "model_config": sizes | settings,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    return encoder


def test_videomae_v2_of_the_hub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = hub_v2(tmp_path / "v2")
    encoder, clip = load_model(tmp_path / "v2"), torch.randn(1, 3, 2, 32, 32)
    assert torch.equal(encoder(clip), expected(clip))
    assert "dropped  fc_norm.weight" in capsys.readouterr().out
    assert encoder.preprocess.mean == (0.485, 0.456, 0.406)
    classifier = VideoClassifier(VideoViT(**SMALL | {"num_heads": 3}), 3, norm_after_pool=True)
    start_from(classifier, tmp_path / "v2")
    assert torch.equal(classifier.encoder(clip), expected(clip))
    assert torch.equal(classifier.fc_norm.weight, torch.full((24,), 2.0))
    config = json.loads((tmp_path / "v2" / "config.json").read_text())
    del config["model_config"]["num_heads"]
    (tmp_path / "v2" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config.json lacks model_config.num_heads"):
        load_model(tmp_path / "v2")


def test_a_revision_of_a_hub_id(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "hub" / "models--somebody--videomae-tiny"
    (cache / "refs" / "pr").mkdir(parents=True)
    (cache / "snapshots").mkdir()
    for number, ref in enumerate(("main", "v1.0", "pr/3")):
        (cache / "refs" / ref).write_text(str(number) * 40)
        save_pretrained(
            VideoClassifier(VideoViT(**SMALL), 3 + number, pool="cls"), cache / "snapshots" / (str(number) * 40)
        )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    named = {"": 3, "@v1.0": 4, "@main": 3, f"@{'1' * 40}": 4, "@pr/3": 5}
    for revision, classes in named.items():
        assert load_model(f"somebody/videomae-tiny{revision}").num_classes == classes
    with pytest.raises(
        ValueError, match=r"somebody/videomae-tiny at revision v9 is no file or directory, and could not"
    ):
        load_model("somebody/videomae-tiny@v9")
    for nothing in ("somebody/videomae-tiny@", "./somebody", "a/b/c", "somebody/x.safetensors", "somebody/x.pth@main"):
        with pytest.raises(ValueError, match=r"does not exist|could not be fetched"):
            load_model(nothing)


def test_what_is_no_model(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x.pth holds no weights"):
        load_model(tmp_path / "x.pth")
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x.pth is no VideoMAE checkpoint: none of its 1 weights .*'conv1.weight'"):
        load_model(tmp_path / "x.pth")
