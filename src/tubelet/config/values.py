"""What a `_target_` names, and whether a plain value from a yaml file may be given where its type hint stands."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError


class Elsewhere:
    """Stands for a value that is checked where it is written, or was reported already."""


def target_of(path: str) -> Any:
    """Import `package.module.Name`. Raises ImportError or AttributeError.

    Python's own `pkgutil.resolve_name` takes a module whose imports fail for one that does not exist.
    """
    parent, _, name = path.rpartition(".")
    if not parent:
        return import_module(name)
    try:
        holder = import_module(parent)
    except ModuleNotFoundError as error:
        if error.name != parent:
            raise
        holder = target_of(parent)  # a name within a class
    return getattr(holder, name)


def parameters_of(target: Any) -> dict[str, inspect.Parameter]:
    """What may be given by name. Raises TypeError or ValueError for what has no signature."""
    parameters = inspect.signature(target).parameters
    return {name: p for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def hints_of(target: Any) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError:  # a library that imports its types under TYPE_CHECKING only: its keys are still checked
        return {}


def fits(value: Any, hint: Any, default: Any) -> bool:
    """Whether a plain value may be given where `hint` stands. Strict: no '8', true or 2.5 for an int; 3 is a float.

    A list passes for a tuple, for yaml has no tuples. Nodes are checked as nodes; a default always fits.
    """
    if _holds_node(value) or (type(value) is type(default) and value == default):
        return True
    try:
        # within a tuple, for pydantic takes no config for a hint that is itself a dataclass
        adapter: TypeAdapter[Any] = TypeAdapter(
            tuple[hint], config=ConfigDict(strict=True, arbitrary_types_allowed=True)
        )
        return any(_valid(adapter, candidate) for candidate in (value, _tuples(value)))
    except (PydanticUserError, PydanticUndefinedAnnotation):  # a hint that only a type checker understands
        return True


def _valid(adapter: TypeAdapter[Any], value: Any) -> bool:
    try:
        adapter.validate_python((value,))
    except ValidationError:
        return False
    return True


def _holds_node(value: Any) -> bool:
    if isinstance(value, dict):
        return "_target_" in value or any(map(_holds_node, value.values()))
    return isinstance(value, Elsewhere) or (isinstance(value, list) and any(map(_holds_node, value)))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def name_of(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
