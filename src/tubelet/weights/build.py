"""Models from plain data: the Hydra node that every checkpoint of ours carries.

A node is a dict with `_target_` and constructor arguments, some of them nodes again. It comes out of files that others
wrote, so only classes of this package are built from it.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

Node = dict[str, Any]


def build(node: Node) -> Any:
    """The object a node describes, nested nodes first. Raises ValueError unless it names a class in `tubelet`."""
    cls = class_of(node)
    try:
        return cls(**{key: _value(value) for key, value in node.items() if not key.startswith("_")})
    except TypeError as error:
        raise ValueError(f"cannot build {node['_target_']}: {error}") from error


def arguments(node: Node) -> Node:
    """The node's arguments, with the constructor's defaults where it is silent."""
    parameters = inspect.signature(class_of(node)).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty} | node


def target(cls: type) -> str:
    """What `_target_` says of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def class_of(node: Node) -> type:
    """What `_target_` names."""
    path = node.get("_target_")
    module, _, name = str(path).rpartition(".")
    if not module.startswith("tubelet."):
        raise ValueError(f"a model config may only name classes of tubelet, not '{path}'")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"a model config names '{path}', which does not exist") from error
    if not isinstance(cls, type):
        raise ValueError(f"a model config may only name classes of tubelet, and '{path}' is none")
    return cls


def _value(value: Any) -> Any:
    if isinstance(value, dict) and "_target_" in value:
        return build(value)
    return [_value(item) for item in value] if isinstance(value, list) else value
