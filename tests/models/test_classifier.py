import pytest
import torch
from torch.nn import functional as F

from tubelet.encoders.vit import VideoViT
from tubelet.encoders.vivit import ViViT
from tubelet.models.classifier import VideoClassifier

SMALL = {"image_size": 16, "num_frames": 2, "patch_size": 8, "dim": 24, "depth": 1, "num_heads": 2}


@pytest.fixture
def tokens():
    return torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))


def test_mean_leaves_the_class_token_out(tokens):
    assert torch.allclose(VideoClassifier(ViViT(**SMALL), 3).pool_tokens(tokens), tokens[:, 1:].mean(1))
    assert torch.allclose(VideoClassifier(VideoViT(**SMALL), 3).pool_tokens(tokens), tokens.mean(1))


def test_cls_is_the_first_token(tokens):
    assert torch.equal(VideoClassifier(ViViT(**SMALL), 3, pool="cls").pool_tokens(tokens), tokens[:, 0])


def test_attentive_pool_does_not_depend_on_the_order_of_tokens(tokens):
    model = VideoClassifier(ViViT(**SMALL), 3, pool="attentive", pool_heads=2)
    assert torch.allclose(model.pool_tokens(tokens), model.pool_tokens(tokens.flip(1)), atol=1e-6)


def test_exactly_one_norm():
    assert isinstance(VideoClassifier(VideoViT(**SMALL, final_norm=False), 3).fc_norm, torch.nn.LayerNorm)
    assert isinstance(VideoClassifier(VideoViT(**SMALL), 3).fc_norm, torch.nn.Identity)
    assert isinstance(VideoClassifier(ViViT(**SMALL), 3, pool="cls").fc_norm, torch.nn.Identity)


@pytest.mark.parametrize("pool", ["mean", "cls", "attentive"])
def test_every_parameter_learns(pool):
    torch.manual_seed(0)
    model = VideoClassifier(VideoViT(**SMALL, final_norm=False), 3, pool=pool, pool_heads=2)
    logits = model(torch.randn(2, 3, 2, 16, 16))
    assert logits.shape == (2, 3)
    model.loss(logits, torch.tensor([0, 2])).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_loss():
    model = VideoClassifier(VideoViT(**SMALL), 3)
    logits = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]])
    label = torch.tensor([2, 0])
    expected = -(logits.log_softmax(1)[[0, 1], label]).mean()
    assert torch.allclose(model.loss(logits, label), expected)
    assert torch.allclose(model.loss(logits, F.one_hot(label, 3).float()), expected)
    regression = VideoClassifier(VideoViT(**SMALL), 1)
    assert regression.loss(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 4])).item() == 2.5


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_weighted_loss_of_a_batch_is_the_mean_of_its_halves(smoothing):
    model, weight = VideoClassifier(VideoViT(**SMALL), 3), torch.tensor([0.5, 1.0, 3.0])
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 0, 2, 1])
    halves = [model.loss(logits[rows], label[rows], smoothing, weight) for rows in (slice(2), slice(2, 4))]
    whole = model.loss(logits, label, smoothing, weight)
    assert torch.allclose(whole, sum(halves) / 2)
    if not smoothing:
        assert torch.allclose(whole, (weight[label] * -logits.log_softmax(1)[range(4), label]).mean())


def test_bad_arguments():
    with pytest.raises(ValueError, match="unknown pool 'max'"):
        VideoClassifier(VideoViT(**SMALL), 3, pool="max")
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        VideoClassifier(VideoViT(**SMALL), 0)
    with pytest.raises(ValueError, match="must name the classes 0 to 2, got 2 names"):
        VideoClassifier(VideoViT(**SMALL), 3, id2label={0: "a", 1: "b"})
