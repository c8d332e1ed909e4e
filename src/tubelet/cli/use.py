"""Commands that draw: what a model reconstructs, where it looks, what a masking hides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tubelet.config.options import Device, Model, Preprocess, Trust, settings


def reconstruct(
    model: Model,
    video: Annotated[Path, typer.Argument(help="any video file")],
    out: Annotated[Path, typer.Option(help="picture to write, ending in .gif, .png or .mp4")],
    masking: Annotated[
        str | None, typer.Option(help="masking to use: tube, random, frame, ...; default: that of the run")
    ] = None,
    ratio: Annotated[
        float | None, typer.Option(help="mask ratio, the share of tokens to hide, in (0, 1); default: that of the run")
    ] = None,
    seed: Annotated[int, typer.Option(help="seed from which the mask is drawn")] = 0,
    device: Device = "cpu",
    preprocess: Preprocess = None,
    trust: Trust = None,
) -> None:
    """Draw a video, the part of it that a masked model sees, and what the model reconstructs."""
    from tubelet.evaluate.device import on_device
    from tubelet.evaluate.pictures import check_picture, save_reconstructions
    from tubelet.evaluate.reconstruction import reconstruct_file
    from tubelet.weights.load import load_masking, load_model

    check_picture(out)
    hide = load_masking(model, masking, ratio, trust=trust or [])
    loaded = on_device(load_model(model, trust=trust or [], preprocess=settings(preprocess)), device)
    print(save_reconstructions(reconstruct_file(loaded, video, hide, seed), out))


def attention(
    model: Model,
    video: Annotated[Path, typer.Argument(help="any video file")],
    out: Annotated[Path, typer.Option(help="film to write, ending in .gif or .mp4")],
    device: Device = "cpu",
    preprocess: Preprocess = None,
    trust: Trust = None,
) -> None:
    """Draw the attention of the last block over the frames: that of the class token, or the mean over all queries."""
    from tubelet.evaluate.attention import save_attention
    from tubelet.evaluate.device import on_device
    from tubelet.weights.load import load_encoder

    encoder = on_device(load_encoder(model, trust=trust or [], preprocess=settings(preprocess)), device)
    print(save_attention(encoder, video, out))


def masks(
    out: Annotated[Path, typer.Option(help="picture to write, ending in .png")],
    ratio: Annotated[float, typer.Option(help="mask ratio, the share of tokens to hide, in (0, 1)")] = 0.75,
    seed: Annotated[int, typer.Option(help="seed from which the masks are drawn")] = 0,
) -> None:
    """Draw what each masking hides of a clip of 16 frames of 224 x 224."""
    from tubelet.evaluate.masks import draw_masks

    print(draw_masks(out, ratio, seed))
