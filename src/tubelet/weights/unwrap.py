"""Taking off what training code puts around weights: tables within tables, and prefixes before every name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from tubelet.weights.source import State

PATCH = "patch_embed.proj.weight"
"""A weight that every encoder of VideoMAE's names has. Where it is, the model is."""

_PREFERRED = ("model", "module", "state_dict", "teacher", "target_encoder")
_DEPTH = 3  # tables within tables, {"checkpoint": {"model": {"state_dict": ...}}}


def table_of(name: str, contents: Any) -> State:
    """The weights in the contents of a file: a table from names to tensors, itself or within other tables.

    If several tables hold an encoder, the first of `_PREFERRED` is taken. Raises ValueError, naming the file, if none
    does, or if it is not known which to take.
    """
    found = {place: table for place, table in _tables(contents, "") if any(key.endswith(PATCH) for key in table)}
    if len(found) > 1:
        known = [key for one in _PREFERRED for key in found if key.rpartition(".")[2] == one]
        if not known:
            raise ValueError(f"{name} holds several models, under {', '.join(found)}: save one of them in its own file")
        return found[known[0]]
    if not found:
        raise ValueError(f"{name} {_what_it_holds(contents)}")
    return next(iter(found.values()))


def without_wrappers(name: str, state: State) -> State:
    """The weights under the names of VideoMAE's code: `encoder.patch_embed...` with a decoder, else `patch_embed...`.

    Wrappers of training (DataParallel, torch.compile) and whatever else stands before the names of the model are taken
    off. Raises ValueError, naming the file, if weights of several encoders are in one table.
    """
    wrappers = ("module", "_orig_mod")
    state = {".".join(part for part in key.split(".") if part not in wrappers): value for key, value in state.items()}
    outer = {re.sub(r"(^|\.)encoder\.$", r"\1", key.removesuffix(PATCH)) for key in state if key.endswith(PATCH)}
    if len(outer) != 1:
        places = ", ".join(sorted(prefix or "no prefix" for prefix in outer))
        raise ValueError(f"{name} holds several models in one table ({places}): save one of them in its own file")
    prefix = outer.pop()
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _tables(contents: Any, place: str, depth: int = 0) -> Iterator[tuple[str, State]]:
    """Every table of tensors, with the names that lead to it. Whatever else lies in a table is left out."""
    if not isinstance(contents, dict):
        return
    own = {key: value for key, value in contents.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if own:
        yield place, own
    for key, value in contents.items():
        if depth < _DEPTH:
            yield from _tables(value, f"{place}.{key}".removeprefix("."), depth + 1)


def _what_it_holds(contents: Any) -> str:
    """Why there is no encoder in the contents of a file, as the end of a sentence about it."""
    keys = [key for _, table in _tables(contents, "") for key in table]
    if any("lora_" in key for key in keys):
        return (
            "holds adapters (LoRA), which are changes to a model and no model: join them with peft "
            "(`model.merge_and_unload()`), save the result with `save_pretrained`, and give that directory"
        )
    if any("embeddings.patch_embeddings" in key for key in keys):
        return (
            "holds the weights of a Hugging Face model without its sizes: put its config.json beside the file, and "
            "give the directory"
        )
    if not keys:
        return "holds no weights: no table from names to tensors"
    return f"is no VideoMAE checkpoint: none of its {len(keys)} weights is a '{PATCH}'; the first is '{keys[0]}'"
