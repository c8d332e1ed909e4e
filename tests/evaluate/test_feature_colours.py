from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from tubelet import run
from tubelet.data.transforms import Preprocess
from tubelet.encoders.vit import VideoViT
from tubelet.evaluate.feature_colours import feature_colours, save_colours


class Known(VideoViT):
    """An encoder whose tokens are set by hand."""

    tokens: Tensor

    def forward(self, *_: object, **__: object) -> Tensor:  # type: ignore[override]
        return self.tokens


def known(tokens: Tensor) -> Known:
    encoder = Known(16, 4, patch_size=8, dim=tokens.shape[-1], depth=1, num_heads=1)  # a grid of 2 x 2 x 2
    encoder.tokens = tokens
    return encoder


def test_tokens_alike_have_one_colour_in_their_own_place() -> None:
    tokens = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1)  # [B,N,D], by position alone
    tokens[0, 5] += torch.tensor([9.0, 0.0, 0.0, 0.0])  # second time step, upper right
    colours = feature_colours(known(tokens), torch.zeros(2, 3, 4, 16, 16))
    assert colours.shape == (2, 4, 16, 16, 3)
    different = (colours[0] - colours[0, 0, 0, 0]).abs().sum(-1) > 0.5  # [T,H,W]
    expected = torch.zeros(4, 16, 16, dtype=torch.bool)
    expected[2:, :8, 8:] = True
    assert torch.equal(different, expected)
    assert (colours[1, 2:, :8, 8:] != colours[0, 2:, :8, 8:]).any(-1).all()


def test_colours_do_not_change_with_the_axes_of_the_features() -> None:
    random = torch.Generator().manual_seed(1)
    tokens = torch.randn(3, 8, 5, generator=random) * torch.tensor([9.0, 5.0, 3.0, 1.0, 0.1])
    turn = torch.linalg.qr(torch.randn(5, 5, generator=random)).Q
    one, two = (feature_colours(known(x), torch.zeros(3, 3, 4, 16, 16)) for x in (tokens, tokens @ turn))
    for channel in range(3):  # an axis may point either way
        a, b = one[..., channel], two[..., channel]
        assert torch.allclose(a, b, atol=1e-3) or torch.allclose(a, 1 - b, atol=1e-3)


def test_one_clip_is_enough_and_two_channels_are_not() -> None:
    assert feature_colours(known(torch.randn(1, 8, 4)), torch.zeros(1, 3, 4, 16, 16)).isfinite().all()
    with pytest.raises(ValueError, match="at least 3 channels, these have 2"):
        feature_colours(known(torch.randn(1, 8, 2)), torch.zeros(1, 3, 4, 16, 16))


def test_two_videos_are_not_the_negatives_of_each_other(videos: Path, tmp_path: Path) -> None:
    tokens = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    tokens[1] = tokens[0]  # the same features twice
    encoder = known(tokens)
    encoder.preprocess = Preprocess(stride=1)  # type: ignore[assignment]
    save_colours(encoder, [videos.parent / "0.mp4"] * 2, tmp_path / "c.png")
    picture = np.asarray(Image.open(tmp_path / "c.png"))
    row = 128 + 2 + 14
    assert picture.shape == (4 * row, 4 * (128 + 2), 3)  # original and colours of each
    assert (picture[row : 2 * row] == picture[3 * row :]).all()
    assert len(np.unique(picture[row + 20 : 2 * row - 20].reshape(-1, 3), axis=0)) > 8
    with pytest.raises(ValueError, match=r"must be \.png, \.gif or \.mp4"):
        save_colours(encoder, [videos.parent / "0.mp4"], tmp_path / "c.jpg")


def test_a_run_whose_target_is_no_pixel_draws_its_features(tiny: Callable[..., DictConfig]) -> None:
    drawn = "callbacks.reconstructions={_target_: tubelet.callbacks.reconstructions.Reconstructions, clips: 2}"
    run.main(tiny("target=hog", "trainer.max_steps=1", "callbacks.knn=null", drawn))
    (path,) = Path("runs/try").iterdir()
    assert not (path / "reconstructions").exists()
    assert Image.open(path / "features/step_0000001.png").size == (4 * (128 + 2), 2 * 2 * (128 + 2 + 14))
    assert Image.open(path / "features/step_0000001.gif").n_frames == 4
