"""The device of a model: moving it there by name, and asking where it is."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def device_of(model: nn.Module) -> torch.device:
    """The device of the first weight."""
    return next(model.parameters()).device


def on_device(model: M, name: str | torch.device) -> M:
    """The model, moved to the device: `cpu`, `cuda`, `cuda:1`, `mps`, ... Raises ValueError if it does not exist."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device '{name}': cpu, cuda, cuda:1, mps, ...") from error
    if device.type == "meta":
        raise ValueError("device 'meta' computes nothing")
    if device.type == "cuda":
        number = torch.cuda.device_count()
        if (device.index or 0) >= number:
            raise ValueError(
                f"device '{name}' does not exist: this machine has {number} CUDA devices that torch can use"
            )
    try:
        return model.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # a build of torch without that device
        raise ValueError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}") from error
