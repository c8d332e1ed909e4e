"""Where a model runs: what is no device is one clear error."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tubelet.evaluate.device import device_of, on_device


def test_a_model_is_moved() -> None:
    model = nn.Linear(2, 2)
    assert on_device(model, "cpu") is model
    assert device_of(model) == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "unknown device 'gpu'"),
        ("", "unknown device ''"),
        ("cuda:99", "'cuda:99' does not exist"),
        ("meta", "meta"),
    ],
)
def test_what_is_no_device(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        on_device(nn.Linear(2, 2), name)
