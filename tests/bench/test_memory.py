"""What a step needs of memory, against sums by hand."""

import pytest
import torch

from tubelet.bench.memory import WHOSE, Living, Memory, apart, measure
from tubelet.bench.subjects import OURS, SUBJECTS, build_subject, inputs_of, loss_of, peer_loss_of, peer_of


def test_living_storages_are_followed() -> None:
    with Living() as living:
        a = torch.zeros(1000)  # 4000 bytes
        b = a + 1  # 8000
        view = b[10:]  # the same storage
        del a, b  # 4000: the view keeps it alive
        c = view * 2  # + 3960
    assert (living.peak, living.now) == (8000, 4000 + c.nbytes)


def test_a_layer_by_hand() -> None:
    weight = torch.ones(50, 100, requires_grad=True)
    with Living() as living:
        hidden = torch.zeros(10, 100) @ weight.T  # 4000 + 2000
        hidden.sum().backward()  # a sum and its gradient, 4 each; hidden's is a view of it; the weight's
    assert living.peak == 4000 + 2000 + 4 + 4 + 20000


def test_the_largest_batch() -> None:
    assert Memory(0, 0, peak=10**9, fixed=5 * 10**9, process=None).largest_batch(80) == 71  # (76 - 5) / 1
    assert Memory(0, 0, peak=10**9, fixed=5 * 10**9, process=None).largest_batch(5) == 0


@pytest.mark.parametrize("name", [name for name in SUBJECTS if "large" not in name and "small" not in name])
def test_every_model_is_measured(name: str) -> None:
    for whose in WHOSE:
        found = measure(name, whose, tiny=True)
        assert (found is None) == (whose == "transformers" and name.endswith((*OURS, "_cross")))
        if found is not None:
            assert 0 < found.saved <= found.peak
            assert found.fixed > (4 if name.endswith(("_frozen", "_lora")) else 16) * found.parameters
            assert found.process is None or found.process > 1e8


def test_what_is_not_trained_needs_less() -> None:
    whole, frozen, lora = (measure(f"finetune_base{suffix}", tiny=True) for suffix in ("", "_frozen", "_lora"))
    assert whole is not None
    assert frozen is not None
    assert lora is not None
    assert frozen.saved < 0.7 * whole.saved  # of one block and not of two
    assert lora.fixed < whole.fixed


@pytest.mark.parametrize("name", ["pretrain_base", "finetune_base", "finetune_vivit", "finetune_timesformer"])
def test_the_peer_computes_the_same(name: str) -> None:
    model = build_subject(name, tiny=True)
    peer = peer_of(model)
    assert peer is not None
    batch = inputs_of(name, model, 2, "cpu")
    assert loss_of(model, *batch)().item() == pytest.approx(peer_loss_of(peer, *batch)().item(), rel=1e-4)


@pytest.mark.slow
def test_in_a_process_of_its_own() -> None:
    assert apart("pretrain_small", "tubelet", "cpu", tiny=True).parameters > 0


def test_an_unknown_model() -> None:
    with pytest.raises(ValueError, match="unknown model 'vit', expected one of pretrain_small"):
        measure("vit")
