"""The two kinds of exported files: how each is written, and how it is run as its users run it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tubelet.export.function import Exported

Runner = Callable[[Tensor], Tensor]
ABOUT = "tubelet.json"
"""Name of the description within a file: `extra_files` of a .pt2, a metadata property of an .onnx."""
_LARGEST = 1_900_000_000
"""Bytes of weights up to which an .onnx is one file: the format ends at 2 GB. Beyond, they lie in FILE.data."""


def write_pt2(function: Exported, path: Path, dynamic: bool) -> None:
    """A program of torch.export: `torch.export.load(path).module()` runs it without this project."""
    arguments, _, shapes = _example(function, dynamic)
    program = torch.export.export(function, arguments, dynamic_shapes=shapes)
    torch.export.save(program, path, extra_files={ABOUT: json.dumps(function.about())})


def run_pt2(path: Path) -> Runner:
    module = torch.export.load(path).module()

    def run(clip: Tensor) -> Tensor:
        with torch.no_grad():
            return module(clip)

    return run


def write_onnx(function: Exported, path: Path, dynamic: bool) -> None:
    """An ONNX file. Its input is called `clip`; its output `logits`, `tokens` or `features`."""
    require_onnx()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    arguments, _, shapes = _example(function, dynamic)
    program = torch.onnx.export(
        function, arguments, dynamo=True, dynamic_shapes=shapes, input_names=["clip"],
        output_names=[function.output], verbose=False,
    )  # fmt: skip
    assert program is not None
    program.model.metadata_props[ABOUT] = json.dumps(function.about())
    size = sum(value.numel() * value.element_size() for value in function.state_dict().values())
    program.save(path, external_data=size > _LARGEST)


def run_onnx(path: Path) -> Runner:
    require_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda clip: torch.from_numpy(session.run(None, {"clip": clip.numpy()})[0])


def require_onnx() -> None:
    """Raises ValueError that says what to install."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            import_module(name)
        except ImportError as error:
            raise ValueError(f"an .onnx needs {name}: pip install 'tubelet[export]'") from error


WRITERS: dict[str, Callable[[Exported, Path, bool], None]] = {".onnx": write_onnx, ".pt2": write_pt2}
RUNNERS: dict[str, Callable[[Path], Runner]] = {".onnx": run_onnx, ".pt2": run_pt2}


def _example(function: Exported, dynamic: bool) -> tuple[tuple[Tensor], dict[str, Any], Any]:
    """Arguments, keywords and shapes of torch.export. A batch of one would be taken for a constant."""
    if not dynamic:
        return (function.example(1),), {}, None
    return (function.example(2),), {}, ({0: torch.export.Dim("batch", min=1)},)
