"""What a program imports before it does anything: a mistake and a help text should not wait for torch.

Each case is a process of its own, for this one has imported everything.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tubelet.cli import app
from tubelet.config.stand_ins import find_target
from tubelet.config.values import hints_of, name_of
from tubelet.nodes import parameters_of, target_of

ROOT = Path(__file__).parents[1]
SLOW = {"torch", "lightning", "torchvision", "torchmetrics", "timm", "transformers", "matplotlib", "pyarrow", "av"}
TARGETS = sorted(
    {
        target
        for path in (ROOT / "conf").rglob("*.yaml")
        for target in re.findall(r"_target_: ?(tubelet\.[\w.]+)", path.read_text())
    }
)


def run(directory: Path, *command: str, path: Path | None = None) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """`python COMMAND` in `directory`, and the packages that it had imported when it ended."""
    hook = directory / "hook"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(
        "import atexit, pathlib, sys\n"
        "write = pathlib.Path(__file__).with_name('packages').write_text\n"
        "atexit.register(lambda: write(' '.join({name.partition('.')[0] for name in sys.modules})))\n"
    )
    paths = [hook, ROOT / "src", *([path] if path else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    environment.pop("HYDRA_FULL_ERROR", None)
    result = subprocess.run(
        [sys.executable, *command], cwd=directory, env=environment, capture_output=True, text=True, timeout=120
    )
    return result, set((hook / "packages").read_text().split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.batchsize=4"], "data.batchsize: unknown key (did you mean 'batch_size'?)"),
        (["+data.foo=1"], "data.foo: unknown key (there are: train, val, test, "),
        (["encoder.image_size=33"], "encoder: image height 33 is not divisible by patch_size 8"),
        (["masking=frame", "masking.ratio=0.2"], "masking.ratio: this ratio hides 0 of 4: "),
        (["data=manifest", "data.train=missing.csv"], "data.train: no such file: missing.csv"),
        (["target._target_=tubelet.targets.pixels.Pixel"], "target._target_: cannot be used: module 'tubelet.targets"),
        (["-m", "masking.ratio=0.5,1.5"], "masking.ratio: masking ratio must lie in (0, 1), got 1.5"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (["optim.base_lr=lots"], "optim.base_lr: must be float, got 'lots'"),
                (
                    ["encoder.position=sin"],
                    "encoder.position: must be Literal['sincos', 'sincos_3d', 'learned'], got 'sin'",
                ),
                (["model.encoder=3"], "model.encoder: must be Encoder, got 3"),
                (["masking.ratio=1.5"], "masking.ratio: masking ratio must lie in (0, 1), got 1.5"),
                (["trainer=cpu", "trainer.precision=16-mixed"], "trainer.precision: 16-mixed needs a GPU; a CPU has "),
                (["method=linear"], "weights: a value is missing: the pretrained weights to start from"),
                (["method._target_=nowhere.Method"], "method._target_: cannot be used: No module named 'nowhere'"),
                (["-m", "data.batchsize=4,8"], "data.batchsize: unknown key (did you mean 'batch_size'?)"),
            )
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_the_config_imports_nothing_slow(tmp_path: Path, arguments: list[str], message: str) -> None:
    result, packages = run(tmp_path, str(ROOT / "train.py"), *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1
    assert packages & SLOW == set()
    assert not (tmp_path / "runs").exists()


def test_a_mask_that_the_encoder_cannot_take_has_one_message_and_no_directory(tmp_path: Path) -> None:
    """Only the encoder knows, so this takes the imports of a run."""
    result, _ = run(tmp_path, str(ROOT / "train.py"), "masking=random", "encoder=timesformer_demo")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(
        "error: TimeSformer attends over space and time in turn, so the same positions must"
    )
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_help_imports_nothing_slow(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom tubelet.cli import app\n"
        "for command in sys.argv[1:]:\n"
        "    result = CliRunner().invoke(app, [*command.split(), '--help'])\n"
        "    assert result.exit_code == 0 and ('Usage' in result.output or command == 'train'), command\n"
    )
    result, packages = run(tmp_path, "-c", script, "", *commands())
    assert result.returncode == 0, result.stderr
    assert packages & SLOW == set()


def test_a_report_imports_neither_torch_nor_lightning(tmp_path: Path) -> None:
    result, packages = run(tmp_path, "-c", "import tubelet.report.page, tubelet.report.sweep")
    assert result.returncode == 0, result.stderr
    assert packages & SLOW == set()


def commands() -> list[str]:
    """Every sub-command of `tubelet`, as it is typed."""

    def walk(command: Any, name: str) -> list[str]:
        children = getattr(command, "commands", {})
        return [name, *(path for child in children.values() for path in walk(child, f"{name} {child.name}"))]

    group: Any = typer.main.get_command(app)
    return [path for child in group.commands.values() for path in walk(child, child.name)]


# ---- stand-ins ------------------------------------------------------------------------------------------------------


def described(path: str) -> dict[str, Any]:
    """All that the checker asks of a `_target_`."""
    target = find_target(path)
    hints = hints_of(target)
    return {
        "parameters": [
            [name, str(p.kind), p.default is p.empty, repr(p.default) if type(p.default) in (int, str, bool) else ""]
            for name, p in parameters_of(target).items()
        ],
        "any key": any(p.kind is p.VAR_KEYWORD for p in inspect.signature(target).parameters.values()),
        "hints": {name: name_of(hint) for name, hint in hints.items() if not hint_of_another_package(hint)},
        "flags": [bool(getattr(target, flag, False)) for flag in ("masked", "frozen", "averages_weights")],
    }


def hint_of_another_package(hint: Any) -> bool:
    """Stand-ins fit everything, so how they are called does not matter."""
    return "torch" in repr(hint) or "lightning" in repr(hint) or "stand_in" in repr(hint)


def test_classes_look_the_same_without_torch_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    script = (
        "import json, sys\nfrom test_startup_script import described\nfrom tubelet.config.stand_ins import stand_ins\n"
        "before = set(sys.modules)\n"
        "with stand_ins():\n    found = {path: described(path) for path in sys.argv[1:]}\n"
        "left = {name.partition('.')[0] for name in set(sys.modules) - before} - {'__mp_main__'}\n"
        "assert left <= sys.stdlib_module_names, left\n"
        "import tubelet\nassert not hasattr(tubelet, 'masking') and not hasattr(tubelet, 'encoders')\n"
        "from torch import nn\nfrom tubelet.encoders.vit import VideoViT\nassert issubclass(VideoViT, nn.Module)\n"
        "print(json.dumps(found))\n"
    )
    source = "\n\n".join(map(inspect.getsource, (described, hint_of_another_package)))
    (tmp_path / "test_startup_script.py").write_text(
        "import inspect\nfrom typing import Any\nfrom tubelet.config.stand_ins import find_target\n"
        "from tubelet.config.values import hints_of, name_of\nfrom tubelet.nodes import parameters_of\n\n" + source
    )
    result, _ = run(tmp_path, "-c", script, *TARGETS, path=tmp_path)
    assert result.returncode == 0, result.stderr
    for path, seen in json.loads(result.stdout).items():
        real = described(path)
        if seen["any key"]:  # its constructor is the one of another package, and so is judged with the real class
            seen |= {key: real[key] for key in ("any key", "hints")}
        assert seen == real, path


def test_a_module_for_which_stand_ins_are_not_enough_is_left_to_the_real_one(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import torch\nTWICE = 2 * torch.pi\ndef build(width: int): ...\n")
    script = (
        "from tubelet.config import stand_ins as s\ns.OWN = 'mine'\n"
        "with s.stand_ins():\n    unknown = s.find_target('mine.build')\n    assert not unknown\n"
        "    try:\n        unknown(width=1)\n    except s.NotImported: pass\n"
        "assert list(s.parameters_by_path('mine.build')) == ['width']\n"
    )
    result, packages = run(tmp_path, "-c", script, path=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "torch" in packages


def test_find_target_is_target_of_where_nothing_stands_in() -> None:
    assert find_target(TARGETS[0]) is target_of(TARGETS[0])
