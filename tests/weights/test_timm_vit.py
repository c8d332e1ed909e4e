"""Of a clip that repeats one image, an inflated encoder must make what the image model makes of the image."""

import pytest
import timm
import torch

from tubelet.encoders.timesformer import TimeSformer
from tubelet.encoders.vit import VideoViT
from tubelet.encoders.vivit import FactorisedViViT, ViViT
from tubelet.weights.load import start_from
from tubelet.weights.timm_vit import inflate

SMALL = {"image_size": 32, "num_frames": 4, "dim": 24, "depth": 2, "num_heads": 2}


@pytest.fixture
def vit():
    torch.manual_seed(0)
    vit = timm.models.VisionTransformer(img_size=32, embed_dim=24, depth=2, num_heads=2, num_classes=5).eval()
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return vit


@pytest.fixture
def image():
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def repeat(image):
    return image[:, :, None].expand(-1, -1, 4, -1, -1)


def test_patch_embedding_of_a_still_clip(vit, image):
    encoder = ViViT(**SMALL)
    inflate(encoder, vit)
    tokens = encoder.patch_embed(repeat(image)).unflatten(1, (2, 4))
    expected = vit.patch_embed(image)
    assert torch.allclose(tokens[:, 0], expected, atol=1e-5)
    assert torch.allclose(tokens[:, 1], expected, atol=1e-5)


@pytest.mark.parametrize("attention_type", ["space_only", "divided_space_time"])
def test_still_clip_through_timesformer(vit, image, attention_type):
    encoder = TimeSformer(**SMALL, attention_type=attention_type, act="gelu").eval()
    report = inflate(encoder, vit)
    expected = vit.forward_features(image)
    if attention_type == "space_only":
        assert "head.weight" in report.dropped
        assert report.fresh == ()
    tokens = encoder(repeat(image))  # time positions start at zero, and so does what temporal attention adds
    assert torch.allclose(tokens[:, 0], expected[:, 0], atol=1e-5)
    assert torch.allclose(tokens[:, 1:5], expected[:, 1:], atol=1e-5)


def test_first_block_of_videomae(vit, image):
    """Queries and values keep their bias; that of the keys cannot be seen in the result."""
    encoder = VideoViT(**SMALL | {"num_frames": 2}, position="learned")
    inflate(encoder, vit)
    x = torch.randn(1, 4, 24)
    assert torch.allclose(encoder.blocks[0](x)[0], vit.blocks[0](x), atol=1e-5)


def test_spatial_half_of_the_factorised_encoder(vit):
    encoder = FactorisedViViT(**SMALL, temporal_depth=1)
    before = encoder.blocks[2].attn.qkv.weight.clone()
    inflate(encoder, vit)
    assert torch.equal(encoder.blocks[1].mlp.fc1.weight, vit.blocks[1].mlp.fc1.weight)
    assert torch.equal(encoder.blocks[2].attn.qkv.weight, before)


def test_places_of_another_frame_size_are_stretched(vit):
    encoder = ViViT(**SMALL | {"image_size": 64})
    inflate(encoder, vit)
    image = vit.pos_embed[:, 1:].unflatten(1, (2, 2)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(image, (4, 4), mode="bicubic").permute(0, 2, 3, 1).flatten(1, 2)
    assert torch.allclose(encoder.positions[:, 1:17], expected, atol=1e-6)
    assert torch.equal(encoder.positions[:, 1:17], encoder.positions[:, 17:])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"dim": 48}, "width 24, the video encoder 48"),
        ({"depth": 3}, "depth 2, the video encoder 3"),
        ({"num_heads": 3}, "num_heads 2, the video encoder 3"),
        ({"patch_size": 8}, r"patch_size \(16, 16\), the video encoder \(8, 8\)"),
        ({"bias": "none"}, r"differ in: blocks.0.attn.qkv.bias"),
    ],
)
def test_differences_are_errors(vit, sizes, message):
    with pytest.raises(ValueError, match=message):
        inflate(ViViT(**SMALL | sizes), vit)


def test_start_from_a_name(vit, monkeypatch, capsys):
    asked = {}
    monkeypatch.setattr(timm, "create_model", lambda name, **kw: asked.update(kw, name=name) or vit)
    start_from(TimeSformer(**SMALL), "timm:vit_base_patch16_224")
    assert asked == {"name": "vit_base_patch16_224", "pretrained": True}
    assert "fresh    time_positions" in capsys.readouterr().out
