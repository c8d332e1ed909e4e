"""Commands that hand a model on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    preprocess: Preprocess = None,
    trust: Trust = None,
) -> None:
    """Convert any weights to a Hugging Face directory, which transformers can load."""
    from tubelet.weights.save import convert

    convert(
        model, directory, trust=trust or [], num_heads=num_heads, decoder_num_heads=decoder_num_heads,
        image_size=image_size, num_frames=num_frames, preprocess=settings(preprocess),
    )  # fmt: skip
    print(directory)
