"""torchmetrics in parts: a run starts 2 to 4 seconds earlier.

Lightning needs two classes of torchmetrics. But that package imports all its metrics, and these import transformers,
torchvision and matplotlib. Here the package is entered into `sys.modules` without running its `__init__`. Submodules
import as usual. The `__init__` runs, in the same module, as soon as anybody asks for a name that is not in `_HOMES`.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_HOMES = {
    "__version__": "torchmetrics.__about__",
    "Metric": "torchmetrics.metric",
    "MetricCollection": "torchmetrics.collections",
}
"""The names that are known without the `__init__`, and the modules that define them."""


def defer() -> None:
    """Defer the `__init__` of torchmetrics and of torchmetrics.functional. Does nothing if one of them has run, or if
    torchmetrics is not installed.
    """
    if "torchmetrics" in sys.modules or find_spec("torchmetrics") is None:
        return
    package = _enter("torchmetrics")
    package.functional = _enter("torchmetrics.functional")  # type: ignore[attr-defined]


def _enter(name: str) -> ModuleType:
    spec = find_spec(name)
    assert spec is not None
    package = _Deferred(name)
    package.__spec__, package.__loader__, package.__file__ = spec, spec.loader, spec.origin
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[name] = package
    return package


class _Deferred(ModuleType):
    def __getattr__(self, name: str) -> Any:
        """Called for names that the module does not have yet."""
        if self.__name__ == "torchmetrics":
            if name == "_logger":  # its submodules print with it
                return logging.getLogger("torchmetrics")
            if name in _HOMES:
                try:
                    return _import(name)
                except ImportError:  # of another version of torchmetrics
                    pass
        if name.startswith("__") and name != "__all__":  # tools look at every module for such names
            raise AttributeError(name)
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def _import(name: str) -> Any:
    if name != "__version__":
        import_module("torchmetrics.utilities")  # it and torchmetrics.metric import each other, in this order
    return getattr(import_module(_HOMES[name]), name)
