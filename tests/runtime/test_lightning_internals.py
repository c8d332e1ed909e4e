"""The private names of Lightning and torch: each is still there and still used, and only one file touches them."""

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy

import tubelet
from tubelet.runtime import lightning_internals
from tubelet.weights import sharded

LIBRARY = Path(tubelet.__file__).parent
INTERNALS = Path(lightning_internals.__file__)
LIBRARIES = ("torch", "lightning", "wandb", "torchmetrics", "timm")

Find = Callable[[L.Trainer], Any]
OWNERS: dict[str, Find] = {  # private name -> what must have it
    "_FitLoop": lambda _: importlib.import_module("lightning.pytorch.loops.fit_loop"),
    "_restarting": lambda trainer: trainer.fit_loop,
    "_data_fetcher": lambda trainer: trainer.fit_loop,
    "_batches_that_stepped": lambda trainer: trainer.fit_loop.epoch_loop,
    "_signal_connector": lambda trainer: trainer,
    "_broadcast_sigterm_tensor": lambda trainer: trainer.fit_loop.epoch_loop,
    "_data_parallel_size": lambda _: ModelParallelStrategy(),
    "_tensor_parallel_size": lambda _: ModelParallelStrategy(),
    "_subclasses": lambda _: importlib.import_module("torch"),
    # public names of private classes
    "register_signal_handlers": lambda trainer: trainer._signal_connector,
    "on_advance_end": lambda trainer: trainer.fit_loop.epoch_loop,
    "epoch_progress": lambda trainer: trainer.fit_loop,
    "batch_progress": lambda trainer: trainer.fit_loop.epoch_loop,
    "_scaled_dot_product_flash_attention_for_cpu": lambda _: torch.ops.aten,
    "_scaled_dot_product_flash_attention_for_cpu_backward": lambda _: torch.ops.aten,
    "_python_dispatch": lambda _: importlib.import_module("torch.utils"),
    "_pytree": lambda _: importlib.import_module("torch.utils"),
    "TorchDispatchMode": lambda _: importlib.import_module("torch.utils._python_dispatch"),
    "tree_leaves": lambda _: importlib.import_module("torch.utils._pytree"),
    "FakeTensorMode": lambda _: importlib.import_module("torch._subclasses.fake_tensor"),
}
USES: dict[str, Find] = {  # name -> the code of Lightning that uses it: a name that nobody reads is as good as gone
    "_restarting": lambda trainer: type(trainer.fit_loop).__mro__[1].restarting.fget,
    "_data_fetcher": lambda trainer: type(trainer.fit_loop).advance,
    "_batches_that_stepped": lambda trainer: type(trainer.fit_loop.epoch_loop).reset,
    "_signal_connector": lambda trainer: type(trainer)._run,
    "register_signal_handlers": lambda trainer: type(trainer)._run,
    "_broadcast_sigterm_tensor": lambda trainer: type(trainer.fit_loop.epoch_loop).advance,
    "on_advance_end": lambda trainer: type(trainer.fit_loop.epoch_loop).run,
    "_data_parallel_size": lambda _: ModelParallelStrategy.setup_environment,
    "_tensor_parallel_size": lambda _: ModelParallelStrategy.setup_environment,
}


@pytest.fixture(scope="module")
def trainer() -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", OWNERS)
def test_the_name_is_still_there(name: str, trainer: L.Trainer) -> None:
    owner = OWNERS[name](trainer)
    known = getattr(owner, "__name__", type(owner).__qualname__)
    assert hasattr(owner, name), f"{known} no longer has `{name}`: see tubelet/runtime/lightning_internals.py"


@pytest.mark.parametrize("name", USES)
def test_the_name_is_still_used(name: str, trainer: L.Trainer) -> None:
    user = USES[name](trainer)
    assert re.search(rf"\.{name}\b", inspect.getsource(user)), f"{user.__qualname__} no longer uses `{name}`"


@pytest.mark.parametrize(
    "name", sorted(f"{module}.{name}" for module, names in sharded._KNOWN.items() for name in names)
)
def test_what_the_list_of_a_sharded_checkpoint_names_is_still_there(name: str) -> None:
    module, _, last = name.rpartition(".")
    assert hasattr(importlib.import_module(module), last)


def test_every_private_name_of_the_file_is_tested() -> None:
    assert set(private_names(INTERNALS, own=set())) <= OWNERS.keys()


def test_no_other_file_touches_a_private_name() -> None:
    own = {name for path in LIBRARY.rglob("*.py") for name in defined(path)}
    found = {
        str(path.relative_to(LIBRARY)): sorted(names)
        for path in sorted(LIBRARY.rglob("*.py"))
        if path != INTERNALS and (names := set(private_names(path, own)))
    }
    assert found == {}


@pytest.mark.parametrize("module", ["runtime", "callbacks", "loggers", "methods", "data"])
def test_no_class_sets_a_field_that_its_library_has(module: str) -> None:
    """A field of ours that takes the name of one of theirs changes what Lightning does, and may be meant to."""
    clashes = {}
    for path in sorted((LIBRARY / module).glob("*.py")):
        if path == INTERNALS:
            continue
        imported = importlib.import_module(f"tubelet.{module}.{path.stem}")
        mine = {name: kind for name, kind in vars(imported).items() if inspect.isclass(kind)}
        for name, kind in mine.items():
            if kind.__module__ != imported.__name__:
                continue
            bases = [base for base in kind.__mro__ if base.__module__.split(".")[0] in LIBRARIES]
            theirs = {field for base in bases for field in fields(base)}
            if both := fields(kind) & theirs:
                clashes[name] = both
    assert clashes == {}


def fields(kind: type) -> set[str]:
    return set(re.findall(r"\bself\.(_[a-z]\w*)", inspect.getsource(kind)))


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def private_names(path: Path, own: set[str]) -> Iterator[str]:
    """Private names that a file imports from a library, or asks any object for and that tubelet has not defined."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in LIBRARIES:
            yield from filter(private, [*node.module.split("."), *(alias.name for alias in node.names)])
        elif isinstance(node, ast.Import):
            yield from (part for alias in node.names for part in alias.name.split(".") if private(part))
        elif isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in own:
            yield node.attr


def defined(path: Path) -> Iterator[str]:
    """Private functions, classes, constants and fields of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif path != INTERNALS and isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield from [node.attr] if ast.unparse(node.value) == "self" else []
