"""A linear layer after a norm or an activation that keeps only the input."""

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from tubelet.layers.frugal import LinearAfter, linear_after


def run(frugal, before, bf16, frozen=False):
    """The output, the gradients, and the bytes that are kept for them."""
    torch.manual_seed(0)
    layer = nn.Linear(16, 64).requires_grad_(not frozen)
    with torch.no_grad():
        for weight in before.parameters() if isinstance(before, nn.Module) else ():
            weight.uniform_()
            weight.grad = None
    leaf = torch.randn(2, 5, 16, requires_grad=True)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autocast("cpu", torch.bfloat16, enabled=bf16), saved_tensors_hooks(keep, lambda tensor: tensor):
        x = leaf * 2
        out = linear_after(before, x, layer) if frugal else layer(before(x))
    out.square().mean().backward()
    weights = [*layer.parameters(), *(before.parameters() if isinstance(before, nn.Module) else ())]
    return out, [leaf.grad, *(weight.grad for weight in weights)], sum(kept.values())


@pytest.mark.parametrize("before", [nn.LayerNorm(16), nn.LayerNorm(16, bias=False), F.gelu, torch.tanh])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_it_is_the_plain_layer_to_the_bit(before, bf16, frozen):
    out, gradients, _ = run(True, before, bf16, frozen)
    expected, truth, _ = run(False, before, bf16, frozen)
    assert torch.equal(out, expected)
    for found, gradient in zip(gradients, truth, strict=True):
        assert (found is None and gradient is None) or torch.equal(found, gradient)


@pytest.mark.parametrize("before", [nn.LayerNorm(16), F.gelu])
def test_it_keeps_less(before):
    assert run(True, before, False)[2] < run(False, before, False)[2]


def test_the_input_can_be_computed_again():
    layer, norm, leaf = nn.Linear(4, 4), nn.LayerNorm(4), torch.randn(3, 4, requires_grad=True)
    linear_after(norm, leaf * 2, layer, again=(lambda half: half * 2, (leaf,))).square().sum().backward()
    found, leaf.grad = leaf.grad, None
    layer(norm(leaf * 2)).square().sum().backward()
    assert torch.equal(found, leaf.grad)


def test_a_layer_that_has_taken_the_place_of_a_linear_one_is_called():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    layer, x = Doubled(4, 4), torch.randn(3, 4)
    assert torch.equal(linear_after(torch.tanh, x, layer), layer(x.tanh()))
    assert linear_after(torch.tanh, x, nn.Linear(4, 4)).grad_fn.name() == f"{LinearAfter.__name__}Backward"
    with torch.no_grad():
        assert linear_after(torch.tanh, x, nn.Linear(4, 4)).grad_fn is None
