import math

import pytest

from tubelet.optim.adamw import AdamW
from tubelet.optim.schedule import warmup_cosine


def test_values_by_hand() -> None:
    rates = [warmup_cosine(step, total=7, warmup=2, lr=1.0, min_lr=0.2, warmup_lr=0.1) for step in range(7)]
    # two warm-up steps, then five points of a half cosine from 1.0 to 0.2
    half = [0.2 + 0.8 * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(5)]
    assert rates == pytest.approx([0.1, 0.55, *half])
    assert rates[2] == 1.0
    assert rates[-1] == pytest.approx(0.2)
    assert rates[4] == pytest.approx(0.6)


def test_learning_rates_are_scaled_once_by_the_global_batch() -> None:
    optim = AdamW(base_lr=1.5e-4, min_lr=1e-5, warmup_lr=1e-6, warmup_epochs=2)
    assert optim.peak_lr(1024) == pytest.approx(6e-4)
    rates = [optim.lr(step, total_steps=100, steps_per_epoch=5, batch_size=1024) for step in range(100)]
    assert rates[0] == pytest.approx(4e-6)
    assert rates[10] == pytest.approx(6e-4)
    assert rates[99] == pytest.approx(4e-5)
    assert max(rates) == rates[10]


def test_a_run_shorter_than_its_warmup_still_has_rates() -> None:
    optim = AdamW(warmup_epochs=40)
    assert all(0 < optim.lr(step, total_steps=3, steps_per_epoch=10, batch_size=256) <= 1.5e-4 for step in range(3))


@pytest.mark.parametrize("wrong", [{"base_lr": 0.0}, {"layer_decay": 1.5}])
def test_impossible_values_name_their_key(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"optim.{next(iter(wrong))}"):
        AdamW(**wrong)
