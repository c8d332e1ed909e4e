"""On a GPU the host must run ahead of the device. A number that it reads from the device, or copies to it from its own
memory, makes it wait. Stand-ins for a GPU's tensors show both, on a machine without one.
"""

from typing import Any

import pytest
import torch

from tubelet.config.compose import build_model, conf_directory
from tubelet.masking import Mask, tube
from tubelet.runtime.lightning_internals import TorchDispatchMode, tensors_without_memory, tree_leaves


class Waits(TorchDispatchMode):
    """Lists what copies between devices or reads a value."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        there, here = (
            {leaf.device.type for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}
            for tree in ((args, kwargs), out)
        )
        if (there and here and there != here) or func.__name__.startswith(("_local_scalar_dense", "nonzero")):
            self.found.append(str(func))
        return out


def on_the_gpu(model: Any, mask: Mask) -> list[str]:
    """What makes the host wait in one forward pass of training, from uint8 clips to the loss."""
    grid, size = model.grid, len(mask.visible)
    with tensors_without_memory():
        weights = {
            name: torch.empty(w.shape, dtype=w.dtype, device="cuda")
            for name, w in [*model.named_parameters(), *model.named_buffers()]
        }
        clip = torch.empty(size, 3, grid.frames, grid.height, grid.width, dtype=torch.uint8, device="cuda")
        there = Mask(*(torch.empty_like(tokens, device="cuda") for tokens in (mask.visible, mask.hidden)))
        label = torch.empty(size, dtype=torch.int64, device="cuda")
        with Waits() as waits:
            clip = model.preprocess.normalise(clip)
            if hasattr(model, "decoder"):
                torch.func.functional_call(model, weights, (clip, there))
            else:
                model.loss(torch.func.functional_call(model, weights, (clip,)), label)
    return waits.found


TARGETS = [[f"target={path.stem}"] for path in sorted((conf_directory() / "target").glob("*.yaml"))]


@pytest.mark.parametrize(
    "choice", [*TARGETS, ["decoder=cross_demo"], ["encoder=timesformer_demo"], ["encoder=vivit_demo"]]
)
def test_pretraining_never_waits(choice: list[str]) -> None:
    model = build_model("experiment=demo_pretrain", *choice).train()
    hidden = torch.stack([tube(model.grid, 0.5, torch.Generator().manual_seed(i)) for i in range(2)])
    assert on_the_gpu(model, Mask.from_hidden(hidden)) == []


def test_classification_never_waits() -> None:
    model = build_model("experiment=demo_finetune", "data.num_classes=8").train()
    nothing = torch.zeros(2, 1, dtype=torch.int64)
    assert on_the_gpu(model, Mask(nothing, nothing)) == []


def test_a_wait_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model("experiment=demo_pretrain").train()
    forward = model.encoder.forward
    monkeypatch.setattr(model.encoder, "forward", lambda clip, mask: forward(clip, mask) * clip.new_tensor([2.0]))
    hidden = torch.stack([tube(model.grid, 0.5, torch.Generator().manual_seed(i)) for i in range(2)])
    assert on_the_gpu(model, Mask.from_hidden(hidden)) == ["aten._to_copy.default"]
