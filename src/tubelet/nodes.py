"""Nodes: plain data that describe objects. Configs and checkpoints consist of nodes; this file builds their objects,
and describes objects as nodes.

A node is a dict. `_target_` is the Python path of a class or function, and the other keys are its arguments, which may
be nodes again. With `_partial_: true` the result is a callable that still takes arguments, as in Hydra. There is no
registry: the path is the name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import fields, is_dataclass
from functools import partial, wraps
from importlib import import_module
from typing import Any

Node = dict[str, Any]
NODE_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_")
OWN = "tubelet"
_PARTS_OF_MODELS = tuple(
    f"{OWN}.{room}" for room in ("encoders.", "decoders.", "targets.", "models.", "data.transforms")
)
_MASKINGS = f"{OWN}.masking"


class Untrusted(ValueError):
    """A node from a file names a class of a package that the caller does not trust."""


def build(node: Any, trusted: Collection[str] | None = None, where: str = "") -> Any:
    """Build the object that `node` describes. Nested nodes are built first; plain data stay as they are.

    trusted: packages besides tubelet whose classes may be built; None: all, for a config that the caller has written.
    where: the key of `node` in the config, for error messages.

    Raises ValueError naming the key if a class does not exist, if an argument is unknown or missing, or if the class
    refuses an argument. Raises Untrusted if the package is not trusted.
    """
    if isinstance(node, list | tuple):
        return [build(item, trusted, f"{where}[{i}]") for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    prefix = f"{where}." if where else ""
    if "_target_" not in node:
        return {key: build(value, trusted, f"{prefix}{key}") for key, value in node.items()}
    target = trusted_target(node, trusted)
    arguments = {key: build(value, trusted, f"{prefix}{key}") for key, value in node.items() if key not in NODE_KEYS}
    if node.get("_partial_", False):
        return partial(target, **arguments)
    name = f"{where}: " if where else ""
    try:
        inspect.signature(target).bind(**arguments)
    except TypeError as error:
        raise ValueError(f"{name}cannot build {node['_target_']}: {error}") from error
    try:
        return target(**arguments)
    except Untrusted:
        raise
    except ValueError as error:
        raise ValueError(f"{name}{error}") from error


def trusted_target(node: Node, trusted: Collection[str] | None) -> Any:
    """The class or function that `_target_` names. Unless `trusted` is None, the node comes from a file. A file may
    name only the classes that models consist of, maskings, and classes of packages that the caller trusts.
    """
    path = str(node.get("_target_"))
    package = path.partition(".")[0]
    if trusted is not None and package != OWN and package not in trusted:
        raise Untrusted(
            f"{path} is not a class of tubelet, and a file may not import code by itself: if you trust the package "
            f"'{package}', pass trust=['{package}'] (on the command line: --trust {package})"
        )
    try:
        target = target_of(path)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot import {path}: {error}") from error
    # the module that defines the object: a path such as `tubelet.models.base.torch...` leads through an import
    home = str(getattr(target, "__module__", ""))
    if trusted is None or home.partition(".")[0] in trusted:
        return target
    if home != _MASKINGS and not (home.startswith(_PARTS_OF_MODELS) and isinstance(target, type)):
        raise Untrusted(f"{path} is no part of a model: a file may not name it")
    return target


def check_trusted(value: Any, trusted: Collection[str]) -> None:
    """Raises Untrusted if any node within `value`, which comes from a file, names what `trusted_target` refuses: to be
    called before such a node becomes a part of a config, whose nodes are all built.
    """
    if isinstance(value, dict):
        if "_target_" in value:
            trusted_target(value, trusted)
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for item in value:
        check_trusted(item, trusted)


def target_of(path: str) -> Any:
    """Import `package.module.Name`. Raises ImportError or AttributeError.

    We do not use `pkgutil.resolve_name`: it reports a module whose own imports fail as a module that does not exist.
    """
    parent, _, name = path.rpartition(".")
    if not parent:
        return import_module(name)
    try:
        holder = import_module(parent)
    except ModuleNotFoundError as error:
        if error.name != parent:
            raise
        holder = target_of(parent)  # `parent` is a class, and `name` an attribute of it
    return getattr(holder, name)


def path_of(target: Any) -> str:
    """The `_target_` of a class or function."""
    return f"{target.__module__}.{target.__qualname__}"


def parameters_of(target: Any) -> dict[str, inspect.Parameter]:
    """The parameters that can be passed by name. Raises TypeError or ValueError if `target` has no signature."""
    parameters = inspect.signature(target).parameters
    return {name: p for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def arguments(node: Node, trusted: Collection[str] | None = None) -> Node:
    """The node's arguments. Where the node does not set one, the default of its class or function is used."""
    parameters = parameters_of(trusted_target(node, trusted))
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty} | node


def packages_of(value: Any) -> set[str]:
    """The packages that a config or node names in any `_target_`."""
    if isinstance(value, dict):
        own = {str(value["_target_"]).partition(".")[0]} if "_target_" in value else set()
        return own.union(*(packages_of(item) for item in value.values()))
    return set().union(*map(packages_of, value)) if isinstance(value, list | tuple) else set()


class Described:
    """An object that knows its node, because it remembers the arguments that it was built with.

    A subclass that changes itself later overrides `settings`.
    """

    passed: int = 0
    """How many of its first arguments its owner passes. Its node leaves them out, and is partial."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__init__" in vars(cls):
            cls.__init__ = _remembering(cls.__init__)  # type: ignore[method-assign]

    def settings(self) -> Node:
        """Its arguments by name: plain data, or objects that `describe` takes. Those that were not given are left out.

        Raises ValueError if it was built with arguments that have no name (`*args`).
        """
        cls = type(self)
        known, given = inspect.signature(cls).parameters, dict(vars(self).get("_given", {}))
        for name, parameter in known.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(name, {})
            elif parameter.kind is parameter.VAR_POSITIONAL and name in given:
                raise ValueError(f"{cls.__qualname__} takes arguments without a name (*{name}): it cannot be described")
        return {name: value for name, value in given.items() if name not in list(known)[: self.passed]}


def describe(value: Any, where: str = "") -> Any:
    """The node from which `build` makes an equal object, without weights: the inverse of `build`.

    Raises ValueError, naming the argument, for an object that is no plain data and does not know its node.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [describe(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: describe(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, Described):
        node = _node(type(value), value.settings(), where)
        return node | {"_partial_": True} if value.passed else node
    if isinstance(value, partial) and not value.args:
        return _node(value.func, value.keywords, where) | {"_partial_": True}
    if is_dataclass(value) and not isinstance(value, type):
        return _node(type(value), {field.name: getattr(value, field.name) for field in fields(value)}, where)
    raise ValueError(f"{where.lstrip('.') or 'it'} is a {type(value).__name__}, which has no description as plain data")


def _node(target: Any, settings: Node, where: str) -> Node:
    return {"_target_": path_of(target), **{key: describe(item, f"{where}.{key}") for key, item in settings.items()}}


def _remembering(init: Callable[..., None]) -> Callable[..., None]:
    """`__init__` that also keeps its arguments. That of a base class keeps none: the subclass was called first."""

    @wraps(init)
    def remembering(self: Any, *arguments: Any, **keywords: Any) -> None:
        if "_given" not in vars(self):
            try:
                given = inspect.signature(init).bind(self, *arguments, **keywords).arguments
            except TypeError:  # `init` raises it, too
                given = {}
            vars(self)["_given"] = dict(list(given.items())[1:])
        init(self, *arguments, **keywords)

    return remembering
