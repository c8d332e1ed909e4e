"""preprocessor_config.json: what it asks for is done, or refused by name with a way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import VideoMAEImageProcessor

from tubelet.data.transforms import Preprocess
from tubelet.encoders.vit import VideoViT
from tubelet.models.classifier import VideoClassifier
from tubelet.weights.load import load_encoder, load_model, start_from
from tubelet.weights.save import save_pretrained

PROCESSOR = "preprocessor_config.json"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A classifier of clips of 32 x 32 pixels."""
    encoder = VideoViT(image_size=32, num_frames=2, dim=24, depth=1, num_heads=2, final_norm=False)
    save_pretrained(VideoClassifier(encoder, 3), tmp_path / "model")
    return tmp_path / "model"


def asks(directory: Path, **settings: Any) -> Path:
    (directory / PROCESSOR).write_text(json.dumps(settings))
    return directory


def frames(height: int = 50, width: int = 70) -> torch.Tensor:
    """Smooth uint8 [2,H,W,3], so that libraries that round differently agree."""
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 4, width), indexing="ij")
    one = torch.stack([(x + y).sin(), (x - y).cos(), (x * y).sin()], dim=-1) * 100 + 128
    return torch.stack([one, one.flip(0)]).to(torch.uint8)


FOLLOWED = {
    "short side": {"size": {"shortest_edge": 40}},
    "short side, bicubic": {"size": {"shortest_edge": 40}, "resample": 3},
    "exact": {"size": {"height": 32, "width": 32}, "do_center_crop": False},
    "exact, bicubic": {"size": {"height": 32, "width": 32}, "do_center_crop": False, "resample": 3},
    "exact, then a crop": {"size": {"height": 40, "width": 36}},
    "no rescale": {"size": {"shortest_edge": 40}, "do_rescale": False, "image_mean": [100.0] * 3},
    "no normalise": {"size": {"shortest_edge": 40}, "do_normalize": False},
}


@pytest.mark.parametrize("settings", FOLLOWED.values(), ids=FOLLOWED)
def test_pixels_are_those_of_the_processor(settings: dict[str, Any], directory: Path) -> None:
    settings = {"crop_size": {"height": 32, "width": 32}} | settings
    theirs = VideoMAEImageProcessor(**settings)
    theirs.save_pretrained(directory)
    video = frames()
    expected = theirs([list(video.numpy())], return_tensors="pt").pixel_values[0].float()  # [T,C,h,w]
    for model in (load_model(directory), resaved(directory)):
        view = model.preprocess.shrinker((32, 32))(video)  # [T,1,h,w,C]
        ours = model.preprocess.normalise(view.permute(1, 4, 0, 2, 3))[0].transpose(0, 1)
        step = float(np.abs(np.array(1 / np.array(model.preprocess.std))).max()) * model.preprocess.scale
        assert ours.shape == expected.shape
        assert (ours - expected).abs().max() <= 1.01 * step  # one of 256 steps: libraries round differently


def resaved(directory: Path) -> Any:
    save_pretrained(load_model(directory), directory.parent / "again")
    return load_model(directory.parent / "again")


REFUSED = {
    "does not resize": {"do_resize": False},
    "does not crop": {"do_center_crop": False},
    "does not crop frames .*height.*40": {"do_center_crop": False, "size": {"height": 40, "width": 40}},
    "crops frames to .*16": {"crop_size": {"height": 16, "width": 16}},
    "crops frames to 48": {"crop_size": 48},
    "resizes the short side to 20": {"size": {"shortest_edge": 20}},
    "resizes frames to .*20": {"size": {"height": 20, "width": 40}},
    "resizes frames to .*longest_edge": {"size": {"longest_edge": 40}},
    "resample 0": {"resample": 0},
    "do_grayscale": {"do_grayscale": True},
}


@pytest.mark.parametrize(("message", "settings"), REFUSED.items())
def test_what_cannot_be_followed_is_refused_with_a_way_out(
    message: str, settings: dict[str, Any], directory: Path
) -> None:
    asks(directory, **settings, image_mean=[0.5] * 3)
    for load in (load_model, load_encoder):
        with pytest.raises(ValueError, match=rf"{PROCESSOR} .*{message}.*--preprocess short_side=null"):
            load(directory)
        mine = load(directory, preprocess={"short_side": None, "stride": 8}).preprocess
        assert (mine.short_side, mine.size, mine.stride, mine.mean) == (None, None, 8, (0.5,) * 3)
        assert load(directory, preprocess=Preprocess(short_side=36)).preprocess == Preprocess(short_side=36)


def test_own_settings_change_those_of_the_file(directory: Path) -> None:
    asks(directory, size={"shortest_edge": 40})
    assert load_model(directory, preprocess={"size": [48, 48]}).preprocess.size == (48, 48)
    assert load_model(directory, preprocess={"size": [48, 48]}, image_size=32).preprocess.short_side is None
    for wrong in ({"shortside": 4}, 3):
        with pytest.raises(ValueError, match="preprocess must be a Preprocess, or settings of short_side"):
            load_model(directory, preprocess=wrong)


def test_training_prepares_pixels_as_its_own_config_says(directory: Path) -> None:
    expected = load_model(directory)
    asks(directory, do_center_crop=False)
    start_from(
        fresh := VideoClassifier(VideoViT(image_size=32, num_frames=2, dim=24, depth=1, num_heads=2), 3), directory
    )
    assert torch.equal(fresh.encoder.blocks[0].attn.qkv.weight, expected.encoder.blocks[0].attn.qkv.weight)


def test_a_resized_clip_scales_the_resizing(directory: Path) -> None:
    asks(directory, size={"height": 40, "width": 36})
    assert load_model(directory, image_size=64).preprocess.size == (80, 72)


def test_broken_files_are_named(directory: Path) -> None:
    (directory / PROCESSOR).write_text("{")
    with pytest.raises(ValueError, match=f"{PROCESSOR} is no JSON file"):
        load_model(directory)
    (directory / PROCESSOR).write_text("[]")
    with pytest.raises(ValueError, match=f"{PROCESSOR} must hold an object"):
        load_model(directory)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": (32, 32), "short_side": 32}, "cannot both be set"),
        ({"size": (32,)}, r"must be \[height, width\]"),
        ({"interpolation": "nearest"}, "must be bilinear or bicubic"),
    ],
)
def test_settings_that_mean_nothing(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocess(**settings)
