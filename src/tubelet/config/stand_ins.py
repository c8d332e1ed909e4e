"""Looks at classes of tubelet without importing what makes that slow.

torch and lightning take seconds to import, and a typo in a key should not cost seconds. So, within `stand_ins()`, every
package that has not been imported yet is replaced by a stand-in: tubelet's own modules run as they are, their functions
and classes have their true signatures and attributes, and whatever comes from torch is an empty class. Sphinx's autodoc
reads documentation this way (`autodoc_mock_imports`). Afterwards nothing of it is left: the run imports everything
properly.

A stand-in never decides anything. It fits any value, it takes any argument, and calling one is an error once the
modules are loaded. So what is found here is true of the real classes too; what is not found here may still be wrong.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from inspect import Parameter, signature
from types import ModuleType
from typing import Any

from pydantic_core import core_schema

from tubelet.nodes import OWN, parameters_of, target_of


class NotImported(Exception):
    """A stand-in was called: only the real package knows the answer."""


class _Meta(type):
    """Attributes of a stand-in are stand-ins. Classes of tubelet that derive from one have no more than their own."""

    @property
    def is_stand_in(cls) -> bool:
        return "made_up" in vars(cls)  # not inherited

    def __getattr__(cls, name: str) -> Any:
        if cls.is_stand_in and not name.startswith("__"):
            return _stand_in(name)
        raise AttributeError(f"type object '{cls.__name__}' has no attribute '{name}'")

    def __getitem__(cls, _: Any) -> Any:  # DataLoader[Batch]
        return cls

    def __bool__(cls) -> bool:  # getattr(some_callback, "averages_weights", False)
        return not cls.is_stand_in


class _StandIn(metaclass=_Meta):
    """Can be a base class, a type hint, and while modules are loaded also a decorator (`@torch.no_grad()`)."""

    loading = False

    def __init__(self, *_: Any, **__: Any) -> None:
        if not _StandIn.loading:
            raise NotImported

    def __call__(self, *arguments: Any, **_: Any) -> Any:
        if not _StandIn.loading:
            raise NotImported
        return arguments[0] if arguments else None

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> core_schema.CoreSchema:
        return core_schema.any_schema() if cls.is_stand_in else core_schema.is_instance_schema(cls)


def standing_in() -> bool:
    """Whether this runs within `stand_ins()`."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def _stand_in(name: str) -> Any:
    return _Meta(name, (_StandIn,), {"made_up": True})


class _StandInModule(ModuleType):
    __path__: list[str] = []  # its submodules are stand-ins, too

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _stand_in(name)


class _Finder(MetaPathFinder, Loader):
    """Finds a stand-in for each installed package that is neither tubelet, nor Python's own, nor imported already."""

    def __init__(self) -> None:
        self.real = {OWN, *sys.stdlib_module_names, *(name.partition(".")[0] for name in sys.modules)}
        self.loaded: list[str] = []

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package = name.partition(".")[0]
        if package == OWN:
            self.loaded.append(name)  # what is loaded now holds stand-ins and must go again
        if package in self.real or (name == package and not self._installed(name)):
            return None
        self.loaded.append(name)
        return ModuleSpec(name, self, is_package=True)

    def _installed(self, name: str) -> bool:
        return any(finder.find_spec(name, None) for finder in sys.meta_path if finder is not self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextmanager
def stand_ins() -> Iterator[None]:
    """Within, an import of a package that nobody has imported yet gives a stand-in. After, it is as if nothing of
    tubelet or of those packages had been imported here.
    """
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in finder.loaded:
            module, (parent, _, own) = sys.modules.pop(name, None), name.rpartition(".")
            if module is not None and vars(sys.modules.get(parent, module)).get(own) is module:
                delattr(sys.modules[parent], own)


def find_target(path: str) -> Any:
    """What `_target_` names; within `stand_ins()` perhaps a stand-in. Raises as `target_of` does."""
    if not standing_in():
        return target_of(path)
    _StandIn.loading = True
    try:
        return target_of(path)
    except Exception as error:
        if any(frame.f_code.co_name == "<module>" for frame, _ in traceback.walk_tb(error.__traceback__)):
            return _stand_in(path)  # a module that does more than define things, for which stand-ins are not enough
        raise
    finally:
        _StandIn.loading = False


def parameters_by_path(path: str) -> dict[str, Parameter]:
    """What a `_target_` may be given by name. The real one is imported only if stand-ins hide the answer."""
    if "torch" not in sys.modules:
        with stand_ins():
            target = find_target(path)
            if all(parameter.kind is not Parameter.VAR_KEYWORD for parameter in signature(target).parameters.values()):
                return parameters_of(target)
    return parameters_of(target_of(path))
