"""Encoder and preprocessing of weights in a run where nobody has chosen others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tubelet import train
from tubelet.config.compose import compose, compose_with_unchosen
from tubelet.data.transforms import Preprocess
from tubelet.decoders.self_attention import SelfAttentionDecoder
from tubelet.encoders.timesformer import TimeSformer
from tubelet.encoders.vit import VideoViT
from tubelet.models.masked import MaskedModel
from tubelet.nodes import path_of
from tubelet.run import main
from tubelet.targets.flow import Flow
from tubelet.weights.adopt import changes, encoder_of, preprocess_of, whole_of
from tubelet.weights.load import load_model, read
from tubelet.weights.save import save_pretrained

FLOW = path_of(Flow)
GOLDEN = Path(__file__).parents[1] / "golden"
SIZES: dict[str, Any] = {"image_size": 16, "num_frames": 4, "patch_size": 8, "dim": 24, "depth": 1, "num_heads": 3}


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, Path]:
    made = {"vit": MaskedModel(VideoViT(**SIZES)), "timesformer": TimeSformer(**SIZES)}
    for name, model in made.items():
        save_pretrained(model, tmp_path / name)
    return {name: tmp_path / name for name in made}


@pytest.fixture
def arguments(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A fine-tuning of one step on three classes, without any word about the encoder."""
    monkeypatch.chdir(tmp_path)

    def make(*more: str) -> list[str]:
        return [
            "experiment=demo_finetune", "name=try", "data=manifest", f"data.train={videos}", f"data.val={videos}",
            "data.batch_size=2", "data.num_workers=0", "data.stride=1", "data.repeats=1", "data.prepare=null",
            "trainer=cpu", "trainer.precision=32-true", "trainer.max_steps=1", "logger=none",
            "callbacks.progress=null", *more,
        ]  # fmt: skip

    return make


def the_run() -> Path:
    (run,) = Path("runs/try").iterdir()
    return run


def test_the_encoder_is_that_of_the_weights(
    arguments: Callable[..., list[str]], weights: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    train(*arguments(f"weights={weights['vit']}", "encoder.num_frames=8"))
    printed = capsys.readouterr().out
    assert "dim 24 (not 128), depth 1 (not 4), num_heads 3 (not 4), position sincos (not sincos_3d)" in printed
    encoder = load_model(the_run()).encoder
    assert (encoder.dim, encoder.blocks[0].attn.num_heads, encoder.grid.frames, encoder.grid.height) == (24, 3, 8, 16)
    assert "dim: 24" in (the_run() / "config.yaml").read_text()
    # the same command continues its own run: the config is the same again
    train(*arguments(f"weights={weights['vit']}", "encoder.num_frames=8", f"resume={the_run()}", "trainer.max_steps=2"))


def test_another_class_of_encoder_and_its_pixels(arguments: Callable[..., list[str]], weights: dict[str, Path]) -> None:
    train(*arguments(f"weights={weights['timesformer']}"))
    model = load_model(the_run())
    assert isinstance(model.encoder, TimeSformer)
    assert (model.preprocess.mean, model.preprocess.stride) == ((0.45,) * 3, 1)


CHOSEN = [
    (
        ["encoder=vit_demo"],
        r"dim 24, this model has 128; depth 1, this model has 4; num_heads 3, .* leave `encoder=` out",
    ),
    (["encoder.num_heads=4"], "num_heads 3, this model has 4"),  # although the experiment says 4, too
    (["preprocess.mean=[0.1,0.1,0.1]"], r"trained with mean \[0.485, 0.456, 0.406\], this model has \[0.1, 0.1, 0.1\]"),
]


@pytest.mark.parametrize(("chosen", "message"), CHOSEN)
def test_a_choice_that_contradicts_the_weights_is_one_error(
    chosen: list[str], message: str, arguments: Callable[..., list[str]], weights: dict[str, Path]
) -> None:
    with pytest.raises(ValueError, match=message):
        train(*arguments(f"weights={weights['vit']}", *chosen))
    assert not Path("runs").exists()


def test_a_config_without_its_command_line_is_taken_as_chosen(
    arguments: Callable[..., list[str]], weights: dict[str, Path]
) -> None:
    with pytest.raises(ValueError, match="dim 24, this model has 128"):
        main(compose(*arguments(f"weights={weights['vit']}")))


def test_what_the_command_line_leaves_open() -> None:
    _, left = compose_with_unchosen("experiment=finetune_small", "weights=x", "encoder.dim=768", "data.num_classes=2")
    assert left["encoder"]["depth"] == 12
    assert "dim" not in left["encoder"]
    assert left["preprocess"]["short_side"] is None
    _, left = compose_with_unchosen("experiment=finetune_small", "weights=x", "encoder=vit_large", "preprocess=vivit")
    assert left.keys() == {"decoder", "target"}
    assert compose_with_unchosen("experiment=demo_pretrain")[1] == {}  # no weights


def test_an_evaluation_takes_decoder_and_target_from_the_weights(
    arguments: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that kNN of a model that predicts flow needs no word about flow."""
    model = MaskedModel(VideoViT(**SIZES), partial(SelfAttentionDecoder, depth=1, dim=12, num_heads=2), partial(Flow))
    save_pretrained(model, tmp_path / "flow")
    command = ("experiment=demo_knn", f"weights={tmp_path / 'flow'}", "masking=frame")
    assert "val/no_flow_loss" in train(*arguments(*command))
    assert "target: that of weights=" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"decoder\.head\.weight is \[16, 12\], the model needs"):
        train(*arguments(*command, "target=raw_pixels"))


def test_a_key_of_the_target_that_the_command_line_names_is_kept(weights: dict[str, Path]) -> None:
    theirs = {"target": {"_target_": FLOW, "cells": 2, "floor": 0.02}}
    source = replace(read(weights["vit"]), node=theirs)
    config = {"_target_": FLOW, "cells": 4, "floor": 0.05}
    assert whole_of("target", source, config, {"_target_": FLOW, "cells": 4}, ()) == theirs["target"] | {"floor": 0.05}
    assert whole_of("decoder", source, config, {}, ()) == config


@pytest.mark.parametrize("part", ["decoder", "encoder", "target"])
def test_no_part_that_is_taken_from_weights_can_run_code(
    part: str, arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    """A config is trusted as a whole, so what a file adds to it is checked before, however deep it lies."""
    save_pretrained(MaskedModel(VideoViT(**SIZES), SelfAttentionDecoder, partial(Flow)), tmp_path / "w")
    file = tmp_path / "w" / "config.json"
    config = json.loads(file.read_text())
    config["model"][part]["mean"] = [{"_target_": "os.mkdir", "path": str(tmp_path / "made")}]
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"os\.mkdir is not a class of tubelet"):
        train(*arguments("experiment=demo_knn", f"weights={tmp_path / 'w'}", "masking=frame"))
    assert not (tmp_path / "made").exists()


def test_preprocessing_of_weights_cannot_run_code(weights: dict[str, Path]) -> None:
    node = {"_target_": path_of(Preprocess), "mean": [{"_target_": "os.mkdir"}]}
    with pytest.raises(ValueError, match=r"os\.mkdir is not a class of tubelet"):
        preprocess_of(replace(read(weights["vit"]), node={"preprocess": node}), node, {}, ())


def test_settings_that_the_experiment_adds_are_kept(weights: dict[str, Path]) -> None:
    source, file = (
        read(weights["vit"]),
        {"_target_": "tubelet.encoders.vit.VideoViT", "image_size": 32, "drop_path": 0.0},
    )
    node = encoder_of(source, file | {"drop_path": 0.2, "image_size": 32}, file, [])
    assert (node["drop_path"], node["image_size"], node["dim"]) == (0.2, 16, 24)
    node = encoder_of(source, file | {"image_size": 48}, file, [])
    assert node["image_size"] == 48
    assert changes(file, node)[0] == "image_size 48 (not 32)"
    with pytest.raises(ValueError, match=r"encoder.tubelet_size is set, but .* holds a TimeSformer, which has no such"):
        encoder_of(read(weights["timesformer"]), file | {"tubelet_size": 1}, file, [])
    pixels = {"_target_": "tubelet.data.transforms.Preprocess", "mean": [0.1] * 3, "stride": 2}
    assert preprocess_of(source, pixels, pixels, [])["mean"] == [0.485, 0.456, 0.406]
    assert preprocess_of(source, pixels, pixels, [])["stride"] == 2
    assert preprocess_of(source, pixels, pixels | {"mean": [0.2] * 3}, [])["mean"] == [0.1] * 3


def test_heads_that_the_file_lacks_must_be_said() -> None:
    file = {"_target_": "tubelet.encoders.vit.VideoViT", "num_heads": 12, "image_size": 48, "num_frames": 16}
    source = read(GOLDEN / "videomae_pretrain.pth")
    with pytest.raises(ValueError, match=r"does not contain its number of attention heads: set encoder.num_heads .*36"):
        encoder_of(source, file, file, [])
    node = encoder_of(source, file | {"num_heads": 3}, file, [])
    assert (node["num_heads"], node["dim"], node["image_size"]) == (3, 36, 48)
