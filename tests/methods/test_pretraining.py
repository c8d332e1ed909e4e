from functools import partial

import pytest
import torch

from tubelet.data.dataset import Batch
from tubelet.data.transforms import Preprocess
from tubelet.decoders.self_attention import SelfAttentionDecoder
from tubelet.encoders.vit import VideoViT
from tubelet.masking import Mask, tube
from tubelet.methods.base import Plan
from tubelet.methods.pretraining import Pretraining
from tubelet.models.masked import MaskedModel
from tubelet.optim.adamw import AdamW
from tubelet.targets.pixels import Pixels


def method() -> Pretraining:
    torch.manual_seed(0)
    encoder = VideoViT(16, 4, patch_size=8, dim=32, depth=2, num_heads=2)
    model = MaskedModel(encoder, partial(SelfAttentionDecoder, dim=16, depth=1, num_heads=2))
    return Pretraining(model, {}, AdamW(), Plan(total_steps=10, steps_per_epoch=5, batch_size=4))


def batch(pretraining: Pretraining) -> Batch:
    generator = torch.Generator().manual_seed(1)
    clip = torch.randn(4, 3, 4, 16, 16, generator=generator).cumsum(-1)
    hidden = torch.stack([tube(pretraining.model.grid, 0.5, generator) for _ in range(4)])
    return Batch(clip, Mask.from_hidden(hidden), torch.zeros(4), torch.arange(4))


def test_finite_loss_and_a_gradient_for_every_parameter() -> None:
    pretraining = method()
    loss = pretraining.step(batch(pretraining)).loss
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pretraining.parameters())


def test_the_loss_falls() -> None:
    pretraining = method()
    data = batch(pretraining)
    optimizer = torch.optim.AdamW(pretraining.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = pretraining.step(data).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_baseline_by_hand() -> None:
    # two pixels of two channels: (p c) = 1 10 3 30; means 2 and 20; squared errors 1, 100, 1, 100
    target = Pixels(
        VideoViT(8, 2, patch_size=8, in_channels=2, dim=8, num_heads=2), Preprocess(mean=[0, 0], std=[1, 1])
    )
    losses = target.baselines(torch.tensor([[[1.0, 10.0, 3.0, 30.0]]]))
    assert losses["patch_mean_loss"].item() == pytest.approx(50.5)


def test_validation_logs_the_baseline_and_training_does_not() -> None:
    pretraining = method()
    data = batch(pretraining)
    assert pretraining.step(data).metrics == {}
    pretraining.eval()
    # normalised patches have mean 0 and variance (p - 1) / p, p = 128 pixels a channel
    assert pretraining.step(data).metrics["patch_mean_loss"].item() == pytest.approx(127 / 128, abs=1e-4)
