"""Whether a plain value from a yaml file may be given where a type hint stands."""

from __future__ import annotations

import inspect
from typing import Any, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError


class CheckedElsewhere:
    """Stands for a value that is checked where it is written, or that has been reported already."""


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
    return isinstance(value, CheckedElsewhere) or (isinstance(value, list) and any(map(_holds_node, value)))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def name_of(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
