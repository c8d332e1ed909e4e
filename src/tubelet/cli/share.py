"""Commands that hand a model on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from tubelet.config.options import Model, Preprocess, Trust, settings


def convert(
    model: Model,
    directory: Annotated[Path, typer.Argument(help="directory to write")],
    num_heads: Annotated[
        int | None, typer.Option(help="attention heads of the encoder, for a .pth of a width that is not published")
    ] = None,
    decoder_num_heads: Annotated[
        int | None, typer.Option(help="attention heads of the decoder, for a .pth of a width that is not published")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="frame size in pixels, for a .pth that was not trained at 224 pixels")
    ] = None,
    num_frames: Annotated[
        int | None, typer.Option(help="number of frames per clip, for a .pth that was not trained on 16 frames")
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            help="transformers: an error if it cannot hold the model; tubelet: this project's own; auto: the first if "
            "it can hold the model, else the second"
        ),
    ] = "auto",
    preprocess: Preprocess = None,
    trust: Trust = None,
) -> None:
    """Convert any weights to a directory of config.json and safetensors, in transformers' format where it can hold the
    model."""
    from tubelet.weights.save import convert

    reason = convert(
        model, directory, cast(Any, format), trust=trust or [], preprocess=settings(preprocess),
        num_heads=num_heads, decoder_num_heads=decoder_num_heads, image_size=image_size, num_frames=num_frames,
    )  # fmt: skip
    print(directory)
    if reason and format == "auto":
        print(f"in tubelet's own format, which `load_model` reads and transformers does not: {reason}")
