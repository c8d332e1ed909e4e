"""The pixel target against its formula in float64."""

import torch

from tubelet.data.transforms import Preprocess
from tubelet.encoders.vit import VideoViT
from tubelet.masking import Mask
from tubelet.targets.pixels import Pixels


def test_a_flat_patch_is_exactly_zero_and_the_others_equal_the_formula() -> None:
    """Of a black bar the rounding of a mean would remain, divided by EPS: no longer small."""
    encoder = VideoViT(image_size=16, num_frames=4, patch_size=8, dim=24, depth=1, num_heads=2)
    preprocess = Preprocess()
    pixels = torch.randint(0, 256, (2, 3, 4, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels[0, :, :, :8] = 16  # a bar
    pixels[1, 2] = 200  # one flat channel
    hidden = torch.ones(2, encoder.grid.N, dtype=torch.bool)
    hidden[:, 0] = False
    mask = Mask.from_hidden(hidden)
    target = Pixels(encoder, preprocess)(preprocess.normalise(pixels), mask)

    cubes = (pixels.double() / 255).view(2, 3, 2, 2, 2, 8, 2, 8).permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(2, 8, -1, 3)
    expected = (cubes - cubes.mean(2, keepdim=True)) / (cubes.std(2, keepdim=True) + 1e-6)
    expected = expected.flatten(2)[:, 1:]
    assert torch.allclose(target.double(), expected, atol=2e-5)
    assert torch.equal(target[expected.abs() < 1e-7], torch.zeros_like(target[expected.abs() < 1e-7]))
