from pathlib import Path

import pytest
import torch
from PIL import Image

from tubelet.data.transforms import Preprocess
from tubelet.encoders.timesformer import TimeSformer
from tubelet.encoders.vit import VideoViT
from tubelet.evaluate.attention import attention_map, save_attention
from tubelet.models.classifier import VideoClassifier


def test_mean_of_the_queries_by_hand() -> None:
    torch.manual_seed(0)
    encoder = VideoViT(image_size=16, num_frames=4, patch_size=8, dim=24, depth=2, num_heads=2).eval()
    clip = torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    weights = encoder(clip, return_attentions=True).attentions[-1]  # [1,2,8,8]
    expected = weights[0].mean(0).mean(0).view(2, 2, 2)
    assert torch.allclose(attention_map(encoder, clip), expected / expected.max())


def test_the_class_token_looks_at_each_frame() -> None:
    torch.manual_seed(0)
    encoder = TimeSformer(image_size=16, num_frames=4, patch_size=8, dim=24, depth=1, num_heads=2).eval()
    clip = torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    weights = encoder(clip, return_attentions=True).attentions[-1]  # [4,2,5,5]
    expected = weights[:, :, 0, 1:].mean(1).view(4, 2, 2)
    assert torch.allclose(attention_map(encoder, clip), expected / expected.max())


def test_a_film(videos: Path, tmp_path: Path) -> None:
    encoder = VideoViT(image_size=16, num_frames=4, patch_size=8, dim=24, depth=1, num_heads=2)
    model = VideoClassifier(encoder, 3, preprocess=Preprocess(stride=2)).eval()
    save_attention(model, videos.parent / "0.mp4", tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 4
    with pytest.raises(ValueError, match=r"must be \.gif or \.mp4"):
        save_attention(model, videos.parent / "0.mp4", tmp_path / "a.png")
