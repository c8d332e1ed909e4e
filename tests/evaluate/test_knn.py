import math

import pytest
import torch

from tubelet.encoders.vit import VideoViT
from tubelet.evaluate.knn import knn_scores, pooled_features


def test_votes_by_hand() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    scores = knn_scores(
        bank, torch.tensor([0, 1, 1]), torch.tensor([[3.0, 4.0]]), 3, k=2, temperature=0.1, standardise=False
    )
    a, b = math.exp(0.6 / 0.1), math.exp(0.8 / 0.1)  # the third neighbour, cosine -0.6, has no vote
    assert torch.allclose(scores, torch.tensor([[a / (a + b), b / (a + b), 0.0]]))


def test_standardising_forgets_scale_and_offset_of_each_dimension() -> None:
    g = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(30, 4, generator=g), torch.randn(7, 4, generator=g)
    labels = torch.randint(3, (30,), generator=g)
    scale, offset = torch.tensor([1.0, 10.0, 0.1, 5.0]), torch.tensor([0.0, 100.0, 3.0, -7.0])
    plain = knn_scores(bank, labels, queries, 3)
    assert torch.allclose(knn_scores(bank * scale + offset, labels, queries * scale + offset, 3), plain, atol=1e-4)
    assert not torch.allclose(plain, knn_scores(bank, labels, queries, 3, standardise=False), atol=1e-2)


def test_a_small_bank_votes_as_a_whole_and_an_empty_one_is_refused() -> None:
    assert torch.allclose(knn_scores(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), 2, k=20).sum(1), torch.ones(2))
    with pytest.raises(ValueError, match="0 features"):
        knn_scores(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), torch.eye(2), 2)


def test_pooled_features_are_the_mean_token() -> None:
    encoder = VideoViT(image_size=16, num_frames=4, patch_size=8, dim=24, depth=1, num_heads=2).eval()
    clip = torch.randn(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pooled_features(encoder, clip), encoder(clip).mean(1))
