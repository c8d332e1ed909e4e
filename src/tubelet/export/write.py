"""Exporting a model to one file that runs without this project. The file is run and compared with the model before it
is moved into place.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tubelet import storage
from tubelet.evaluate.window_features import Pool
from tubelet.export.check import check, times
from tubelet.export.function import Exported, Output
from tubelet.export.quantise import loss_of_accuracy, quantise
from tubelet.export.runners import WRITERS, require_onnx, run_onnx


def export(
    model: Any,
    path: str | Path,
    *,
    output: Output | None = None,
    layers: Sequence[int] = (),
    pool: Pool = "mean",
    dynamic: bool = False,
    half: bool = False,
    uint8: bool = False,
    int8: Path | None = None,
) -> list[str]:
    """Write an .onnx or a .pt2 (torch.export). Returns what was measured, one line each.

    Args:
        model: a VideoClassifier, MaskedModel (its encoder) or encoder, on the CPU.
        output, layers, pool, half, uint8: of `Exported`.
        dynamic: any number of clips; else one.
        int8: manifest of videos. The file has 8-bit weights, and the loss of accuracy on these videos is measured.

    Raises ValueError if the file's ending is another, if packages are missing, if the model has no such output, or if
    the file computes something else than the model. Then nothing is written.
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise ValueError(f"cannot write '{path}': the ending must be {' or '.join(WRITERS)}")
    if int8 is not None and (path.suffix != ".onnx" or half):
        raise ValueError(f"8-bit weights are written as an .onnx, and without half; got {path.suffix}, half={half}")
    if path.suffix == ".onnx":
        require_onnx()
    storage.keep_directory(path)
    reference = Exported(model, output, layers, pool, uint8)
    function = Exported(model, output, layers, pool, uint8, half=True) if half else reference
    folder = storage.part(path)
    storage.remove(folder)
    folder.mkdir(parents=True)
    try:
        written = folder / path.name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            WRITERS[path.suffix](function, written, dynamic)
        lines = [f"{path.suffix[1:]}: {check(written, function, reference, dynamic)}"]
        if int8 is not None:
            lines += _quantised(reference, written, int8)
        _move(folder, path)
    finally:
        storage.remove(folder)
    return lines


def _quantised(function: Exported, written: Path, manifest: Path) -> list[str]:
    """Replace the file by one with 8-bit weights."""
    small = written.with_name(f"int8_{written.name}")
    quantise(written, small)
    before, after = written.stat().st_size, small.stat().st_size
    milliseconds, _ = times(run_onnx(small), function)
    line = loss_of_accuracy(function, written, small, manifest)
    for each in written.parent.glob(f"{written.name}*"):
        each.unlink()
    small.rename(written)
    return [f"{line}; {milliseconds:.1f} ms per clip; {after / 1e6:.1f} MB instead of {before / 1e6:.1f}"]


def _move(folder: Path, path: Path) -> None:
    """Each file to its place, that of the weights first: the other names it."""
    for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
        storage.flush(file)
        storage.put(file, path.with_name(file.name))
