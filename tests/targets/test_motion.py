"""Motion by hand, pixel by pixel."""

import pytest
import torch

from tubelet.data.transforms import Preprocess
from tubelet.encoders.vit import VideoViT
from tubelet.masking import Mask
from tubelet.targets.motion import Motion

ENCODER = VideoViT(image_size=16, num_frames=4, patch_size=8, dim=24, depth=1, num_heads=2)
MASK = Mask(torch.tensor([[0, 1, 2, 3, 5]]), torch.tensor([[4, 7]]))
PREPROCESS = Preprocess(mean=[0.1, 0.2, 0.3], std=[0.2, 0.2, 0.2])


def target(**settings) -> Motion:
    return Motion(ENCODER, PREPROCESS, **settings)


def clip_of(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels in [0, 1] [B,3,T,H,W], normalised."""
    mean = torch.tensor(PREPROCESS.mean).view(3, 1, 1, 1)
    return (pixels - mean) / 0.2


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("reference", ["mean", "neighbour"])
def test_by_hand(pixels: torch.Tensor, reference: str) -> None:
    truth = target(reference=reference, floor=0.05)(clip_of(pixels), MASK).unflatten(2, (2, 8, 8, 3))
    for place, (t, h, w) in enumerate([(1, 0, 0), (1, 1, 1)]):  # tokens 4 and 7
        for p0, p1, p2, c in [(0, 0, 0, 0), (1, 3, 5, 2), (0, 7, 7, 1)]:
            values = [float(pixels[0, c, frame, 8 * h + p1, 8 * w + p2]) for frame in range(4)]
            mean = sum(values) / 4
            other = {"mean": [mean] * 4, "neighbour": [values[1], *values[:3]]}[reference]
            changes = [value - old for value, old in zip(values, other, strict=True)]
            deviation = (sum(change**2 for change in changes) / 4) ** 0.5
            expected = changes[2 * t + p0] / (deviation + 0.05)
            assert truth[0, place, p0, p1, p2, c].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("reference", ["mean", "neighbour"])
def test_what_stands_is_nothing_whatever_its_texture(pixels: torch.Tensor, reference: str) -> None:
    still = pixels[:, :, :1].expand(-1, -1, 4, -1, -1)
    noise = 0.001 * torch.randn(still.shape, generator=torch.Generator().manual_seed(1))
    motion = target(reference=reference)
    assert motion(clip_of(still), MASK).abs().max() < 1e-4
    noisy = motion(clip_of(still + noise), MASK)
    assert noisy.square().mean().sqrt() < 0.08  # a twentieth of the floor
    assert motion.baselines(noisy)["no_motion_loss"].item() == pytest.approx(noisy.square().mean().item())


@pytest.mark.parametrize("reference", ["mean", "neighbour"])
def test_the_truth_is_drawn_as_the_pixels_themselves(pixels: torch.Tensor, reference: str) -> None:
    motion, clip = target(reference=reference), clip_of(pixels)
    drawn = motion.to_pixels(motion(clip, MASK), clip, MASK).unflatten(2, (2, 8, 8, 3))
    assert torch.allclose(drawn[0, 1], pixels[0, :, 2:, 8:, 8:].permute(1, 2, 3, 0), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reference": "median"}, "target.reference must be mean or neighbour, got 'median'"),
        ({"floor": 0.0}, "target.floor must be positive, got 0.0"),
    ],
)
def test_what_cannot_be(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        target(**settings)


def test_one_frame_has_no_motion() -> None:
    still = VideoViT(image_size=16, num_frames=1, tubelet_size=1, patch_size=8, dim=24, depth=1, num_heads=2)
    with pytest.raises(ValueError, match=r"at least 2 frames, encoder\.num_frames is 1"):
        Motion(still, PREPROCESS)
