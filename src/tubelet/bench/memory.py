"""What a training step needs of memory, and the largest batch that fits: ours beside transformers', in bf16 autocast.

Each model is measured in a process of its own, with one clip and with two; the difference is what a clip needs.

saved       activations kept from forward to backward: storages that autograd saves, without weights
peak        most memory of tensors at once in forward and backward, with the clip (float32). On a GPU it is what its
            allocator reports for the whole step. On a CPU every tensor is followed from its birth to its death; memory
            within a kernel is not seen
process     the most that the whole process has held on the CPU, libraries included
batch       (memory - fixed) / peak per clip; fixed: weights, gradients, AdamW's two moments, bf16 copies of the weights
            (at the peak, early in the backward pass, few gradients exist: a little more fits in truth)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tubelet.bench.subjects import (
    OURS,
    Step,
    build_subject,
    check_device,
    check_subjects,
    inputs_of,
    loss_of,
    peer_loss_of,
    peer_of,
)
from tubelet.runtime.lightning_internals import TorchDispatchMode, tree_leaves

WHOSE = ("tubelet", "transformers")
USABLE = 0.95
"""Share of a GPU's memory that tensors can use: the rest is for its context and for gaps between tensors."""


@dataclass(frozen=True)
class Memory:
    """Bytes. `saved` and `peak` are per clip; `fixed` does not depend on the batch; `process` is None on a GPU, and
    `saved` is 0 there.
    """

    parameters: int
    saved: int
    peak: int
    fixed: int
    process: int | None

    def largest_batch(self, memory_gb: float) -> int:
        """The number of clips that fit into `memory_gb` (10^9 bytes) at once; 0 if the weights alone do not."""
        return max(int((USABLE * memory_gb * 1e9 - self.fixed) // self.peak), 0)


class Living(TorchDispatchMode):
    """Follows every storage that operations make within it. `peak`: the most bytes that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):
            self._seen.add(storage)  # made before: the result may be a view of it
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            if storage not in self._seen:
                self._seen.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._died, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _died(self, size: int) -> None:
        self.now -= size


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def measure(name: str, whose: str = "tubelet", device: str = "cpu", tiny: bool = False) -> Memory | None:
    """Measure one of tubelet.bench.subjects.SUBJECTS in this process; None if transformers has no such model."""
    model: Any = build_subject(name, tiny=tiny)
    make: Callable[..., Callable[[], Tensor]] = loss_of
    few, more = (1, 2) if device == "cpu" else (8, 16)  # a GPU's allocator counts gradients, which hide a small batch
    clips = {size: inputs_of(name, model, size, device) for size in (few, more)}
    if whose == "transformers":
        model, make = None if name.endswith(OURS) else peer_of(model), peer_loss_of
        if model is None:
            return None
    model.to(device)
    parameters = sum(p.numel() for p in model.parameters())
    step, losses = Step(model, lambda: torch.empty(())), {size: make(model, *batch) for size, batch in clips.items()}
    clip_bytes = clips[few][0].nbytes // few
    if device == "cuda":
        low, high = (_allocated(step, losses[size]) for size in (few, more))
        each = (high - low) // (more - few)
        return Memory(parameters, 0, each + clip_bytes, low - few * each, None)
    step.loss = losses[more]
    step()
    process = _most_resident()
    saved, peaks = zip(*(_followed(step, losses[size]) for size in (few, more)), strict=True)
    peak = peaks[1] - peaks[0]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # in addition to what forward and backward make: weights, and of those that are trained a gradient and two moments
    fixed = peaks[0] - peak + 4 * parameters + 12 * trained
    return Memory(parameters, saved[1] - saved[0], peak + clip_bytes, fixed, process)


def _allocated(step: Step, loss: Callable[[], Tensor]) -> int:
    """The most that the GPU's allocator has held during a step, everything included."""
    step.loss = loss
    step()  # makes the moments
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def _followed(step: Step, loss: Callable[[], Tensor]) -> tuple[int, int]:
    """Bytes that are saved for the backward pass, and the peak of what forward and backward make, gradients of weights
    apart: each is dropped at once. With few clips they would hide what a clip needs.
    """
    step.loss = loss
    step.optimizer.zero_grad(set_to_none=True)
    weights = {p.untyped_storage() for p in step.model.parameters()}
    trained = [p for group in step.optimizer.param_groups for p in group["params"]]
    hooks = [p.register_post_accumulate_grad_hook(_drop_gradient) for p in trained]
    saved: dict[Any, int] = {}

    def weigh(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage not in weights:
            saved[storage] = storage.nbytes()
        return tensor

    with Living() as living:
        with saved_tensors_hooks(weigh, lambda tensor: tensor):
            result = step.forward()
        total = sum(saved.values())
        saved.clear()  # it has kept them alive
        result.backward()
    for hook in hooks:
        hook.remove()
    return total, living.peak


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def _most_resident() -> int | None:
    """The most bytes that this process has had in memory; None where the system does not say (it is not Linux)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def apart(name: str, whose: str, device: str, tiny: bool = False) -> Memory | str | None:
    """`measure` in a process of its own; a text if it could not be measured there: why."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(measure, name, whose, device, tiny).result()
        except BrokenProcessPool:
            return "its process died: out of memory?"
        except (torch.OutOfMemoryError, MemoryError) as error:
            return f"out of memory: {str(error).splitlines()[0] if str(error) else 'no message'}"
        except ValueError as error:  # peft is not installed
            return str(error)


def print_memory(names: list[str], memory_gb: float = 80.0, device: str = "cpu", tiny: bool = False) -> None:
    """Measure the models and print a line for each as soon as it is measured. Raises ValueError for a model or device
    that does not exist.
    """
    check_subjects(names)
    check_device(device)
    print(f"a training step in bf16 on {device}; saved and peak in MB per clip; the largest batch in {memory_gb:g} GB")
    print(
        f"{'model':22}{'of':13}{'M weights':>10}{'fixed GB':>10}{'saved':>8}{'peak':>8}{'process GB':>12}{'batch':>8}"
    )
    for name in names:
        for whose in WHOSE:
            found = apart(name, whose, device, tiny)
            if found is not None:
                print(f"{name:22}{whose:13}{found if isinstance(found, str) else _line(found, memory_gb)}", flush=True)


def _line(found: Memory, memory_gb: float) -> str:
    saved = f"{found.saved / 1e6:.0f}" if found.saved else ""
    process = "" if found.process is None else f"{found.process / 1e9:.2f}"
    return (
        f"{found.parameters / 1e6:10.1f}{found.fixed / 1e9:10.2f}{saved:>8}{found.peak / 1e6:8.0f}{process:>12}"
        f"{found.largest_batch(memory_gb):8,}"
    )
