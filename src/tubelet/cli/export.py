"""The command that writes a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from tubelet.config.options import Model, Preprocess, Trust, settings, whole_numbers


def export(
    model: Model,
    file: Annotated[Path, typer.Argument(help="file to write, ending in .onnx or .pt2")],
    output: Annotated[
        str | None,
        typer.Option(
            help="logits, tokens, or features (as `tubelet features --window`); default: logits of a classifier, else "
            "tokens"
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="blocks whose features stand side by side, for example 6,12; default: the output")
    ] = None,
    pool: Annotated[str, typer.Option(help="of features: mean, spatial or tokens")] = "mean",
    dynamic: Annotated[str | None, typer.Option(help="batch: any number of clips at once; default: one clip")] = None,
    half: Annotated[bool, typer.Option("--half", help="weights and arithmetic in float16")] = False,
    with_preprocess: Annotated[
        str | None,
        typer.Option(help="uint8: the clip is uint8 and is normalised inside; default: it is normalised before"),
    ] = None,
    int8: Annotated[
        Path | None,
        typer.Option(metavar="MANIFEST", help="8-bit weights (.onnx); prints the loss of accuracy on these videos"),
    ] = None,
    preprocess: Preprocess = None,
    trust: Trust = None,
) -> None:
    """Export a model to one file that runs without tubelet: ONNX or torch.export. It is run and compared with the model
    before it is written, and timed beside it."""
    for name, value, known in (("--dynamic", dynamic, "batch"), ("--with-preprocess", with_preprocess, "uint8")):
        if value not in (None, known):
            raise ValueError(f"{name} must be {known}, got '{value}'")
    blocks = whole_numbers("--layers", layers)
    if int8 is not None and not int8.is_file():
        raise ValueError(f"--int8 {int8}: there is no such manifest")
    from tubelet.export.write import export
    from tubelet.weights.load import load_model

    loaded = load_model(model, trust=trust or [], preprocess=settings(preprocess))
    lines = export(
        loaded, file, output=cast(Any, output), layers=blocks, pool=cast(Any, pool), dynamic=dynamic is not None,
        half=half, uint8=with_preprocess is not None, int8=int8,
    )  # fmt: skip
    print(*lines, file, sep="\n")
