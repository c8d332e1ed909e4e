"""Attention's own backward pass in bfloat16 on the CPU."""

import pytest
import torch
from torch.nn import functional as F

from tubelet.layers import bfloat16_attention
from tubelet.layers.attention import fused

SIZES = {"queries fewer than keys": (2, 3, 5, 40, 16), "many tokens": (1, 2, 300, 300, 64), "one": (1, 1, 1, 7, 8)}


@pytest.mark.parametrize("scores", [1, 2**21])  # a head at a time, and all at once
@pytest.mark.parametrize("size", SIZES)
def test_gradients_are_those_of_attention_but_for_rounding(size, scores, monkeypatch):
    monkeypatch.setattr(bfloat16_attention, "_SCORES", scores)
    clips, heads, queries, keys, width = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(clips, count, heads, width, generator=generator).bfloat16().transpose(1, 2).requires_grad_()
        for count in (queries, keys, keys)
    )
    grad = torch.randn(q.shape, generator=generator).bfloat16()
    out = fused(q, k, v, 0.2)
    assert torch.equal(out, F.scaled_dot_product_attention(q, k, v, scale=0.2))
    exact = [each.detach().double().requires_grad_() for each in (q, k, v)]
    expected = torch.autograd.grad(F.scaled_dot_product_attention(*exact, scale=0.2), exact, grad.double())
    for found, truth in zip(torch.autograd.grad(out, (q, k, v), grad), expected, strict=True):
        assert found.dtype == torch.bfloat16
        assert (found - truth).norm() < 0.01 * truth.norm()


def test_it_is_an_operator_that_torch_can_trace():
    q, k, v, grad = (torch.randn(2, 3, 5, 8).bfloat16() for _ in range(4))
    arguments = (grad, q, k, v, F.scaled_dot_product_attention(q, k, v), 0.3)
    torch.library.opcheck(torch.ops.tubelet.attention_backward.default, arguments)


def test_float32_and_evaluation_stay_with_the_kernel_of_torch():
    q, k, v = (torch.randn(1, 2, 5, 8, requires_grad=True) for _ in range(3))
    ours = "BFloat16AttentionBackward"
    assert fused(q.bfloat16(), k.bfloat16(), v.bfloat16(), 0.3).grad_fn.name() == ours
    assert fused(q, k, v, 0.3).grad_fn.name() != ours
    with torch.no_grad():
        assert fused(q.bfloat16(), k.bfloat16(), v.bfloat16(), 0.3).grad_fn is None
