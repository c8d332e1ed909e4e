"""The target by hand, and the decoder under dual masking."""

from functools import partial

import pytest
import torch

from tubelet import masking
from tubelet.data.transforms import Preprocess
from tubelet.decoders.self_attention import SelfAttentionDecoder
from tubelet.encoders.timesformer import TimeSformer
from tubelet.encoders.vit import VideoViT
from tubelet.encoders.vivit import FactorisedViViT, ViViT
from tubelet.masking import Mask
from tubelet.models.masked import MaskedModel
from tubelet.targets.pixels import Pixels

SMALL = {"image_size": 16, "num_frames": 4, "patch_size": 8, "dim": 24, "depth": 1, "num_heads": 2}
MASK = Mask(torch.tensor([[0, 2, 4]]), torch.tensor([[3, 6]]))  # dual: tokens 1, 5 and 7 are in neither


def build(channels=3, **target):
    torch.manual_seed(0)
    encoder = VideoViT(**SMALL, in_channels=channels)
    preprocess = Preprocess(mean=[0.1 * (c + 1) for c in range(channels)], std=[0.2] * channels)
    decoder = partial(SelfAttentionDecoder, dim=16, depth=1, num_heads=2)
    return MaskedModel(encoder, decoder, partial(Pixels, **target), preprocess)


def by_hand(clip, token, channels):
    """The numbers of token (t h w) of the 2 x 2 x 2 grid, in the order (p0 p1 p2 c), in [0, 1]: [p,C]."""
    t, h, w = token // 4, token // 2 % 2, token % 2
    rows = [
        [clip[0, c, 2 * t + p0, 8 * h + p1, 8 * w + p2].item() * 0.2 + 0.1 * (c + 1) for c in range(channels)]
        for p0 in range(2)
        for p1 in range(8)
        for p2 in range(8)
    ]
    return torch.tensor(rows)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_target_by_hand(channels):
    clip = torch.randn(1, channels, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    raw = build(channels, normalise=False).target(clip, MASK)
    normalised = build(channels).target(clip, MASK)
    for i, token in enumerate(MASK.hidden[0].tolist()):
        pixels = by_hand(clip, token, channels)
        assert torch.allclose(raw[0, i], pixels.flatten(), atol=1e-6)
        expected = (pixels - pixels.mean(0)) / (pixels.var(0, unbiased=True).sqrt() + 1e-6)
        assert torch.allclose(normalised[0, i], expected.flatten(), atol=1e-4)


def test_loss_is_the_mean_square_over_predicted_tokens_alone():
    clip = torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    out = build()(clip, MASK)
    assert out.pixels.shape == out.target.shape == (1, 2, 2 * 8 * 8 * 3)
    assert torch.allclose(out.loss, ((out.pixels - out.target) ** 2).mean())
    changed = clip.clone()
    changed[:, :, 0:2, 0:8, 8:16] += 1  # token 1: neither visible nor predicted
    assert torch.equal(build()(changed, MASK).loss, out.loss)


@pytest.mark.parametrize("cls", [VideoViT, ViViT, FactorisedViViT, TimeSformer])
def test_dual_masking_trains_every_system(cls):
    torch.manual_seed(0)
    encoder = cls(**SMALL | {"num_frames": 8})
    mae = MaskedModel(encoder, partial(SelfAttentionDecoder, dim=16, depth=1, num_heads=2))
    generator = torch.Generator().manual_seed(0)
    hidden = torch.stack([masking.dual(mae.grid, ratio=0.5, generator=generator) for _ in range(2)])
    mask = Mask.from_hidden(hidden)
    out = mae(torch.randn(2, 3, 8, 16, 16), mask)
    out.loss.backward()
    assert out.pixels.shape[1] == mae.grid.N // 4
    assert torch.isfinite(out.loss)
    assert mae.decoder.mask_token.grad.abs().max() > 0
