"""HOG against a slow reference, pixel by pixel, and for pictures whose histograms are known."""

import math

import numpy as np
import pytest
import torch

from tubelet.data.transforms import Preprocess
from tubelet.encoders.vit import VideoViT
from tubelet.masking import Mask
from tubelet.targets.hog import HOG

PLAIN = Preprocess(mean=[0.0] * 3, std=[1.0] * 3)
MASK = Mask(torch.tensor([[0, 1, 2, 3, 4, 6]]), torch.tensor([[5, 7]]))


def encoder(**changes) -> VideoViT:
    return VideoViT(**{"image_size": 32, "num_frames": 4, "patch_size": 16, "dim": 8, "num_heads": 2} | changes)


def slow(image: np.ndarray, cell: int = 8, bins: int = 9) -> np.ndarray:
    """float64 [H,W] -> [H/cell,W/cell,bins]."""
    padded = np.pad(image.astype(np.float64), 1, mode="reflect")
    height, width = image.shape
    found = np.zeros((height // cell, width // cell, bins))
    for row in range(height):
        for column in range(width):
            near = padded[row : row + 3, column : column + 3]
            across = float(((near[:, 2] - near[:, 0]) * [1, 2, 1]).sum())
            down = float(((near[2] - near[0]) * [1, 2, 1]).sum())
            angle = math.degrees(math.atan2(down, across)) % 180
            number = int(angle / (180 / bins)) % bins
            found[row // cell, column // cell, number] += math.hypot(across, down)
    return found / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-12)


def test_against_a_slow_reference() -> None:
    clip = torch.rand(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    truth = HOG(encoder(), PLAIN)(clip, MASK)
    assert truth.shape == (1, 2, 108)
    assert truth.dtype == torch.float32
    # tokens 5 and 7: time step 1, whose first frame is frame 2; the right column of patches, above and below
    for place, row in enumerate([0, 1]):
        found = truth[0, place].view(2, 2, 3, 9)
        for channel in range(3):
            expected = slow(clip[0, channel, 2].numpy())[2 * row : 2 * row + 2, 2:4]
            assert np.abs(found[:, :, channel].numpy() - expected).max() < 1e-5


@pytest.mark.parametrize(("degrees", "number"), [(10, 0), (30, 1), (90 + 1, 4), (170, 8), (190, 0)])
def test_a_slope_lies_in_one_bin(degrees: float, number: int) -> None:
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    angle = math.radians(degrees)
    found = HOG(encoder(), PLAIN).histograms((math.cos(angle) * x + math.sin(angle) * y)[None])
    inner = found[0, 1:3, 1:3]  # the border is mirrored, so the slope ends there
    assert torch.allclose(inner, torch.nn.functional.one_hot(torch.tensor(number), 9).expand(2, 2, 9).float())


def test_contrast_and_brightness_do_not_matter_and_nothing_is_zero() -> None:
    clip = torch.rand(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    hog = HOG(encoder(), PLAIN)
    assert torch.allclose(hog(0.2 * clip + 0.3, MASK), hog(clip, MASK), atol=1e-4)
    assert hog(torch.full_like(clip, 0.5), MASK).abs().max() == 0


def test_half_precision_of_the_model_does_not_reach_it() -> None:
    clip = torch.rand(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    hog = HOG(encoder(), PLAIN)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(hog(clip, MASK), hog(clip, MASK))
        half = hog(clip, MASK)
    assert torch.equal(half, hog(clip, MASK))


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"target\.cell 8 does not divide encoder\.patch_size 14"):
        HOG(encoder(image_size=28, patch_size=14), PLAIN)
    with pytest.raises(ValueError, match=r"target\.bins must be at least 2, got 1"):
        HOG(encoder(), PLAIN, bins=1)
    with pytest.raises(ValueError, match=r"expected a clip \[B,C,4,32,32\], got \[1, 3, 4, 16, 16\]"):
        HOG(encoder(), PLAIN)(torch.zeros(1, 3, 4, 16, 16), MASK)
