"""What a training step costs, counted on tensors that have a shape but no memory: nothing is computed.

The model's own code decides, not a formula. Operations are those of the model: what activation checkpointing computes
again does not count, so speed over a device's peak is the model FLOP/s utilisation (MFU) of the PaLM paper
(https://arxiv.org/abs/2204.02311, appendix B).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from tubelet.layers.stack import blocks_of
from tubelet.layers.switches import switched_off
from tubelet.runtime.lightning_internals import cpu_attention_counts, tensors_without_memory


@dataclass(frozen=True)
class Cost:
    """The cost of one training clip: floating-point operations of forward and backward (a multiplication and an
    addition are two), and the bytes saved between them under bf16 autocast: activations, and the bf16 copies of the
    weights, which do not depend on the number of clips. `parameters` counts those of the model, also the frozen ones.
    """

    parameters: int
    flops: float
    activations: int


def cost_of(step: nn.Module, inputs: Callable[[], tuple[Any, ...]], clips: int) -> Cost:
    """The cost of `step(*inputs()).backward()` per clip, if `inputs` are `clips` clips. `inputs` is called where new
    tensors have no memory; they must be on the CPU. The weights of `step` are not touched, and may be on any device.

    Raises what the step raises if it reads a value of a tensor: there is none.
    """
    # stand-ins on the CPU wherever the weights are: its kernels are the same on every machine
    weights = [*step.named_parameters(), *step.named_buffers()]
    mode = tensors_without_memory()
    with mode:
        fakes = {name: torch.empty(w.shape, dtype=w.dtype).requires_grad_(w.requires_grad) for name, w in weights}
    known = {tensor.untyped_storage() for tensor in fakes.values()}
    saved: dict[Any, int] = {}

    def weigh(tensor: Tensor) -> Tensor:
        # by storage, so that views of one tensor count once; weights are in memory anyway
        if tensor.untyped_storage() not in known:
            saved[tensor.untyped_storage()] = tensor.untyped_storage().nbytes()
        return tensor

    counter = FlopCounterMode(display=False, custom_mapping=cpu_attention_counts())
    with switched_off(blocks_of(step)), mode, counter:
        with saved_tensors_hooks(weigh, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
            loss = torch.func.functional_call(step, fakes, inputs())
        loss.backward()
    parameters = sum(p.numel() for p in step.parameters())
    return Cost(parameters, counter.get_total_flops() / clips, sum(saved.values()) // clips)
