"""Adapters of LoRA joined with the weights that they change, so that a fine-tuned model is an ordinary one."""

from __future__ import annotations

from tubelet.weights.source import State

_BASE, _A, _B = ".base_layer", ".lora_A.default.weight", ".lora_B.default.weight"


def joined(state: State, scale: float | None, name: str) -> State:
    """W + scale * B A for every layer that has an adapter, under the layer's own name; all else as it is.

    scale: alpha / rank. Computed in float32 at least, and kept in the type of W. Raises ValueError, naming the file, if
    there are adapters and their scale is not known.
    """
    adapted = [key.removesuffix(_A) for key in state if key.endswith(_A)]
    if not adapted:
        return state
    if scale is None:
        raise ValueError(f"{name} holds adapters (LoRA) without their scale: it was not written by method=lora")
    whole = {key.replace(_BASE, ""): value for key, value in state.items() if not key.endswith((_A, _B))}
    for layer in adapted:
        weight, a, b = whole[f"{layer}.weight"], state[layer + _A], state[layer + _B]
        whole[f"{layer}.weight"] = (weight.float() + b.float() @ a.float() * scale).to(weight.dtype)
    return whole
