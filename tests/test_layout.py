"""The walls of the house: which room may import which, and what must not lie at the top."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "src" / "tubelet"

RANKS = [  # lowest first: a room imports lower ranks and its own folder, nothing else of tubelet
    {"clip", "storage", "nodes", "version"},
    {"masking", "layers"},
    {"data", "encoders", "optim"},
    {"decoders", "targets"},
    {"models"},
    {"weights", "evaluate", "videos"},
    {"demo", "methods", "loggers", "export"},
    {"runtime"},
    {"callbacks"},
    {"report"},
    {"config"},
    {"run"},
    {"bench", "page", "study", "tune"},
    {"launch"},
    {"cli"},
]
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}


def modules() -> dict[str, Path]:
    """Every module of the library but the package itself, which re-exports the public API lazily."""
    named = {}
    for path in LIBRARY.rglob("*.py"):
        parts = path.relative_to(LIBRARY).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del named[""]
    return dict(sorted(named.items()))


def imports(source: str, known: set[str]) -> set[tuple[str, str]]:
    """`(module, name)` for each import of tubelet, wherever it stands: `("masking", "Mask")`, or `("masking", "")` for
    the module itself; `("", name)` for the public API. A relative import is `(".", "")`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "tubelet":
                    found.add((alias.name.removeprefix("tubelet").removeprefix("."), ""))
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                found.add((".", ""))
            elif node.module and node.module.split(".")[0] == "tubelet":
                module = node.module.removeprefix("tubelet").removeprefix(".")
                for alias in node.names:
                    inner = f"{module}.{alias.name}".removeprefix(".")
                    found.add((inner, "") if inner in known else (module, alias.name))
    return found


def broken_walls(module: str, source: str, known: set[str]) -> list[str]:
    """What `module` imports and must not."""
    room = module.split(".")[0]
    broken = []
    for target, name in sorted(imports(source, known)):
        other = target.split(".")[0]
        if target == ".":
            broken.append("a relative import: write it in full")
        elif other == "":
            if room != "cli":
                broken.append(f"the public API ({name}): import it from its room")
        elif other != room and RANK[other] >= RANK[room]:
            broken.append(f"{target}, which is not lower than {room}")
        elif room == "encoders" and other == "masking" and name != "Mask":
            broken.append(f"masking.{name}: encoders know only Mask")
    return broken


def test_every_room_has_a_rank() -> None:
    assert {module.split(".")[0] for module in modules()} <= RANK.keys()


@pytest.mark.parametrize("module", modules())
def test_imports_only_what_is_lower(module: str) -> None:
    known = set(modules())
    assert broken_walls(module, modules()[module].read_text(), known) == []


CONCRETE = ("encoders", "decoders", "targets")
MAY_NAME_THEM = ("encoders.", "decoders.", "targets.", "models.", "weights.formats.", "weights.timm_vit")


def test_concrete_classes_are_named_where_they_live_and_in_file_formats_alone() -> None:
    """Everything else asks `Encoder`, `Decoder` and `Target` what they can do: a new one works without an edit."""
    known = set(modules())
    named = {
        module: target
        for module, path in modules().items()
        if not module.startswith(MAY_NAME_THEM)
        for target, _ in imports(path.read_text(), known)
        if target.split(".")[0] in CONCRETE and not target.endswith(".base")
    }
    assert named == {}


def test_no_circles_within_a_folder() -> None:
    known = modules()
    arrows = {name: {target for target, _ in imports(path.read_text(), set(known))} for name, path in known.items()}

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        for target in arrows.get(module, ()):
            if target.split(".")[0] == module.split(".")[0]:
                walk(target, (*trail, module))

    for module in known:
        walk(module, ())


def test_files_are_small() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: length for name, length in lengths.items() if length > 350} == {}


def test_nothing_shadows_the_hugging_face_datasets() -> None:
    """train.py puts the root on sys.path: a package or module `datasets` there would win over the installed one."""
    assert not (ROOT / "datasets" / "__init__.py").exists()
    assert not (ROOT / "datasets.py").exists()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("layers.block", "import tubelet.models.masked"),
        ("layers.block", "from tubelet.masking import Mask"),  # the same rank, another room
        ("data.dataset", "from tubelet import run"),
        ("data.dataset", "def later():\n    from tubelet.cli import main"),
        ("models.masked", "from tubelet import load_model"),
        ("models.masked", "from .classifier import VideoClassifier"),
        ("encoders.vit", "from tubelet.masking import tube"),
        ("encoders.vit", "import tubelet.masking"),
    ],
)
def test_a_broken_wall_is_found(module: str, source: str) -> None:
    assert len(broken_walls(module, source, {"run", "masking", "models.masked"})) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("encoders.vit", "from tubelet.masking import Mask\nfrom tubelet.encoders.base import Encoder"),
        ("run", "from tubelet.runtime import run_directory\nimport torch\nfrom lightning import Trainer"),
        ("cli", "from tubelet import load_model"),
    ],
)
def test_a_lower_room_may_be_imported(module: str, source: str) -> None:
    assert broken_walls(module, source, {"runtime.run_directory"}) == []


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest imports them by it, and would leave out the second."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
