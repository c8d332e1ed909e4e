"""Flow of textures that move by a known amount, and against a slow solution of the least squares."""

import numpy as np
import pytest
import torch

from tubelet.data.transforms import Preprocess
from tubelet.encoders.vit import VideoViT
from tubelet.masking import Mask
from tubelet.targets.flow import Flow

PLAIN = Preprocess(mean=[0.0] * 3, std=[1.0] * 3)
ALL = Mask(torch.zeros(1, 0, dtype=torch.int64), torch.arange(32)[None])  # 2 time steps of 4 x 4 patches


def encoder(**changes) -> VideoViT:
    return VideoViT(**{"image_size": 32, "num_frames": 4, "patch_size": 8, "dim": 8, "num_heads": 2} | changes)


def moving(vx: float, vy: float, size: int = 32, frames: int = 4) -> torch.Tensor:
    """[1,3,T,H,W]: a texture of a few waves that moves by vx, vy pixels a frame."""
    y, x = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    waves = ((0.35, 0.1), (-0.15, 0.4), (0.25, 0.3))
    time = torch.arange(float(frames))[:, None, None]
    clip = [0.5 + 0.2 * torch.sin(a * (x - vx * time) + b * (y - vy * time)) for a, b in waves]
    return torch.stack(clip)[None]


@pytest.mark.parametrize(("vx", "vy"), [(0.0, 0.0), (1.0, 0.0), (-1.5, 0.5), (0.3, -1.2)])
def test_a_texture_that_moves(vx: float, vy: float) -> None:
    target = Flow(encoder(), PLAIN)
    truth = target(moving(vx, vy), ALL)
    assert truth.shape == (1, 32, target.dim) == (1, 32, 16)
    flow = truth.view(32, 2, 2, 2, 2)  # token, frame, x y, row, column
    assert flow[:, :, 0].mean().item() == pytest.approx(vx, abs=0.1 + 0.1 * abs(vx))
    assert flow[:, :, 1].mean().item() == pytest.approx(vy, abs=0.1 + 0.1 * abs(vy))
    assert target.baselines(truth)["no_flow_loss"].item() == pytest.approx(truth.square().mean().item())


def test_against_a_slow_solution() -> None:
    frames = torch.rand(1, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = Flow(encoder(), PLAIN)
    flow = target.flow(frames)
    assert flow.shape == (1, 3, 2, 8, 8)
    a, b = frames[0, 1].numpy(), frames[0, 2].numpy()
    middle = (a + b) / 2
    # the cell in row 3, column 4 and its window: pixels 10 to 17 and 14 to 21
    rows, down, across, change = [], [], [], []
    for row in range(10, 18):
        for column in range(14, 22):
            for c in range(3):
                across.append((middle[c, row, column + 1] - middle[c, row, column - 1]) / 2)
                down.append((middle[c, row + 1, column] - middle[c, row - 1, column]) / 2)
                change.append(b[c, row, column] - a[c, row, column])
    rows = np.stack([across, down], axis=1)
    normal = rows.T @ rows / 64 + 0.02**2 * np.eye(2)
    expected = np.linalg.solve(normal, -rows.T @ np.array(change) / 64)
    assert flow[0, 1, :, 3, 4].numpy() == pytest.approx(np.clip(expected, -4, 4), abs=1e-9)


def test_tokens_have_their_own_flow() -> None:
    clip = moving(0.0, 0.0)
    clip[..., 16:, :] = moving(1.0, 0.0)[..., 16:, :]  # only the lower half moves
    truth = Flow(encoder(), PLAIN)(clip, ALL).view(2, 4, 4, 2, 2, 2, 2)  # t, h, w, frame, x y, row, column
    assert truth[:, 0].abs().max() < 1e-6
    assert truth[:, 3, :, :, 0].mean().item() == pytest.approx(1.0, abs=0.2)
    some = Mask(torch.tensor([[0]]), torch.tensor([[12, 31]]))
    assert torch.equal(Flow(encoder(), PLAIN)(clip, some)[0, 1], truth[1, 3, 3].flatten())


def test_colour_and_contrast_do_not_matter_and_large_patches_are_reduced() -> None:
    clip, target = moving(1.0, -0.5), Flow(encoder(), PLAIN, floor=1e-3)
    expected = target(clip, ALL).mean((0, 1))
    assert target(0.5 + 0.5 * (clip.flip(1) - 0.5), ALL).mean((0, 1)).allclose(expected, atol=0.02)
    large = Flow(encoder(image_size=64, patch_size=16), PLAIN, floor=1e-3)
    assert (large.cell, large.reduce, large.dim) == (4, 2, 16)
    twice = torch.nn.functional.interpolate(clip, size=(4, 64, 64), mode="trilinear")  # it moves twice as far
    assert large(twice, ALL).mean((0, 1)).allclose(expected, atol=0.1)
    flat = target(torch.full((1, 3, 4, 32, 32), 0.3), ALL)
    assert torch.equal(flat, torch.zeros_like(flat))


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"target\.cells 3 does not divide encoder\.patch_size 8"):
        Flow(encoder(), PLAIN, cells=3)
    with pytest.raises(ValueError, match=r"target\.cells 0"):
        Flow(encoder(), PLAIN, cells=0)
    with pytest.raises(ValueError, match=r"target\.cells 1 .*patch_size 14"):
        Flow(encoder(image_size=28, patch_size=14), PLAIN, cells=1)
    with pytest.raises(ValueError, match=r"target\.floor must be positive, got 0"):
        Flow(encoder(), PLAIN, floor=0)
    with pytest.raises(ValueError, match="flow needs at least 2 frames"):
        Flow(encoder(num_frames=1, tubelet_size=1), PLAIN)
