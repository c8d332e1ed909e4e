from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from tubelet.data.transforms import Preprocess
from tubelet.decoders.self_attention import SelfAttentionDecoder
from tubelet.encoders.base import Encoder
from tubelet.encoders.vit import VideoViT
from tubelet.evaluate.pictures import check_picture, save_reconstructions
from tubelet.evaluate.reconstruction import GREY, reconstruct, reconstruct_file
from tubelet.masking import Mask, tube
from tubelet.models.masked import MaskedModel, MaskedOutput
from tubelet.targets.base import Target
from tubelet.targets.pixels import Pixels

PREPROCESS = Preprocess(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def model(norm_pix_loss: bool) -> MaskedModel:
    encoder = VideoViT(16, 4, patch_size=8, dim=16, depth=1, num_heads=2)
    decoder = partial(SelfAttentionDecoder, dim=16, depth=1, num_heads=2)
    return MaskedModel(encoder, decoder, partial(Pixels, normalise=norm_pix_loss), PREPROCESS).eval()


@pytest.fixture
def clip() -> torch.Tensor:
    pixels = torch.randint(0, 256, (2, 3, 4, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return PREPROCESS.normalise(pixels)


@pytest.fixture
def mask() -> Mask:
    hidden = torch.zeros(2, 8, dtype=torch.bool)
    hidden[0, [1, 2, 5]] = hidden[1, [0, 4, 7]] = True
    return Mask.from_hidden(hidden)


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_a_perfect_prediction_gives_the_original_back(
    clip: torch.Tensor, mask: Mask, norm_pix_loss: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mae = model(norm_pix_loss)
    target = mae.target(clip, mask)
    monkeypatch.setattr(MaskedModel, "forward", lambda *_: MaskedOutput(torch.zeros(()), target, target))
    result = reconstruct(mae, clip, mask)
    assert ("true mean" in result.caption) == norm_pix_loss
    assert result.original.shape == (2, 4, 16, 16, 3)
    assert torch.allclose(result.original, PREPROCESS.denormalise(clip).movedim(1, -1), atol=1e-6)
    assert torch.allclose(result.reconstructed, result.original, atol=1e-5)
    # token 1 of the first clip: time step 0 (frames 0 and 1), upper right
    assert (result.masked[0, :2, :8, 8:] == GREY).all()
    assert torch.equal(result.masked[0, :2, :8, :8], result.original[0, :2, :8, :8])
    assert ((result.masked == GREY).all(-1).float().mean() - 3 / 8).abs() < 0.01


@pytest.mark.parametrize("ending", ["png", "gif", "mp4"])
def test_pictures_can_be_opened(clip: torch.Tensor, mask: Mask, ending: str, tmp_path: Path) -> None:
    path = save_reconstructions(reconstruct(model(True), clip, mask), tmp_path / "new" / f"x.{ending}")
    assert path.stat().st_size > 100
    assert [file.name for file in path.parent.iterdir()] == [f"x.{ending}"]
    if ending == "gif":
        assert Image.open(path).n_frames == 4


def test_mistakes_are_named(videos: Path) -> None:
    half = partial(tube, ratio=0.5)
    with pytest.raises(ValueError, match=r"x\.jpg"):
        check_picture("x.jpg")
    with pytest.raises(ValueError, match="VideoViT"):
        reconstruct_file(model(True).encoder, videos.parent / "0.mp4", half)
    with pytest.raises(ValueError, match=r"nothing\.mp4"):
        reconstruct_file(model(True), "nothing.mp4", half)
    blind = MaskedModel(model(True).encoder, target=Sizes)
    with pytest.raises(ValueError, match="predicts Sizes, which cannot be seen"):
        reconstruct_file(blind, videos.parent / "0.mp4", half)


class Sizes(Target):
    """A target that is no picture."""

    def __init__(self, encoder: Encoder, preprocess: Preprocess) -> None:
        super().__init__()
        self.dim = 1

    def forward(self, clip: torch.Tensor, mask: Mask) -> torch.Tensor:
        return clip.new_zeros(*mask.hidden.shape, 1)


def test_any_video_file(videos: Path) -> None:
    result = reconstruct_file(model(False), videos.parent / "1.mp4", partial(tube, ratio=0.5))
    assert result.original.shape == (1, 4, 16, 16, 3)
