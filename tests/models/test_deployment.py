"""What torch does with a finished model: exporting its graph for any batch size, and quantising its linear layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tubelet.decoders.cross_attention import CrossAttentionDecoder
from tubelet.encoders.base import Encoder
from tubelet.encoders.timesformer import TimeSformer
from tubelet.encoders.vit import VideoViT
from tubelet.encoders.vivit import FactorisedViViT, ViViT
from tubelet.layers.attention import Attention
from tubelet.masking import Mask
from tubelet.models.classifier import VideoClassifier
from tubelet.models.masked import MaskedModel

SMALL = {"image_size": 16, "num_frames": 4, "patch_size": 8, "dim": 16, "depth": 1, "num_heads": 2}
ENCODERS: dict[str, Callable[[], Encoder]] = {
    "vit": lambda: VideoViT(**SMALL),
    "vit v2": lambda: VideoViT(**SMALL, cosine_attention=True, layer_scale=0.1, position="learned"),
    "vivit": lambda: ViViT(**SMALL),
    "vivit factorised": lambda: FactorisedViViT(**SMALL, temporal_depth=1),
    **{
        f"timesformer {kind}": partial(TimeSformer, **SMALL, attention_type=kind)
        for kind in ("divided_space_time", "joint_space_time", "space_only")
    },
}
POOLS = [*((name, "auto") for name in ENCODERS), ("vit", "attentive"), ("vivit", "attentive")]


def classifier(encoder: str, pool: str) -> VideoClassifier:
    torch.manual_seed(0)
    model = VideoClassifier(ENCODERS[encoder](), 3, pool=pool, pool_heads=2, pool_depth=2).eval()  # type: ignore[arg-type]
    nn.init.normal_(model.head.weight)
    return model


def clips(batch: int) -> Tensor:
    return torch.randn(batch, 3, 4, 16, 16, generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize(("encoder", "pool"), POOLS)
def test_an_exported_model_takes_any_number_of_clips(encoder: str, pool: str) -> None:
    model = classifier(encoder, pool)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (clips(2),), dynamic_shapes={"clip": {0: batch}}).module()
    for number in (1, 5):
        assert torch.allclose(exported(clips(number)), model(clips(number)), atol=1e-6)


def quantised(model: nn.Module) -> nn.Module:
    """Linear layers with 8-bit weights, by torch's own function."""
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear})


@pytest.mark.parametrize(("encoder", "pool"), POOLS)
def test_a_quantised_model_computes_about_the_same(encoder: str, pool: str) -> None:
    model = classifier(encoder, pool)
    small = quantised(model)
    assert not any(type(part) is nn.Linear for part in small.modules())
    expected = model(clips(2))
    assert (small(clips(2)) - expected).abs().max() < 0.1 * expected.abs().max()


def test_a_quantised_masked_model() -> None:
    torch.manual_seed(0)
    decoder = partial(CrossAttentionDecoder, maps=True, depth=1, dim=16, num_heads=2)
    model = MaskedModel(VideoViT(**SMALL), decoder).eval()
    mask = Mask.from_hidden((torch.arange(8) % 2 == 0)[None].expand(2, -1))
    expected = model(clips(2), mask).prediction
    assert (quantised(model)(clips(2), mask).prediction - expected).abs().max() < 0.1 * expected.abs().max()


def test_a_layer_that_takes_the_place_of_the_projection_is_called() -> None:
    """An adapter wraps the layer; its own `weight` would leave the adapter out."""

    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    attention = Attention(8, 2, bias="qv")
    nn.init.normal_(attention.v_bias)
    x = torch.randn(1, 3, 8)
    plain = attention.project(x)
    doubled = Doubled(8, 24, bias=False)
    doubled.load_state_dict(attention.qkv.state_dict())
    bias = plain - attention.qkv(x)
    attention.qkv = doubled
    assert torch.allclose(attention.project(x), 2 * (plain - bias) + bias, atol=1e-6)
