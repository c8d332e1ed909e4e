"""Attention over many short sequences, joined."""

import pytest
import torch
from torch.nn import functional as F

from tubelet.layers.attention import Attention
from tubelet.layers.short_attention import ShortAttention, joins


def attention(qkv):
    """[B,K,3,heads,d] -> [B,K,heads*d] by PyTorch's kernel."""
    return F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4), scale=0.2).transpose(1, 2).flatten(2)


@pytest.mark.parametrize(("batch", "tokens", "count"), [(12, 8, 4), (6, 8, 3), (4, 5, 4), (2, 16, 2), (2, 1, 2)])
def test_it_is_attention_but_for_rounding(batch, tokens, count):
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(batch, tokens, 3, 2, 16, generator=generator).bfloat16().requires_grad_()
    grad = torch.randn(batch, tokens, 32, generator=generator).bfloat16()
    assert joins(qkv) == count
    out = ShortAttention.apply(qkv, 0.2, count)
    exact = qkv.detach().double().requires_grad_()
    truth = attention(exact)
    assert (out - truth).norm() < 0.01 * truth.norm()
    found, expected = torch.autograd.grad(out, qkv, grad)[0], torch.autograd.grad(truth, exact, grad.double())[0]
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() < 0.01 * expected.norm()


def test_only_short_sequences_in_bfloat16_training_are_joined():
    short = torch.randn(4, 8, 3, 2, 16, requires_grad=True)
    assert joins(short) == 1
    assert joins(short.bfloat16()) == 4
    assert joins(short.bfloat16().detach()) == 1
    assert joins(torch.randn(4, 17, 3, 2, 16, requires_grad=True).bfloat16()) == 1
    assert joins(torch.randn(1, 8, 3, 2, 16, requires_grad=True).bfloat16()) == 1
    layer, x = Attention(32, 2), torch.randn(4, 8, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.mix(x)[0].grad_fn.name() == "ShortAttentionBackward"
        assert layer.mix(x, return_attention=True)[1].shape == (4, 2, 8, 8)
