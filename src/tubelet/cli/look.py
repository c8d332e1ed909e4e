"""Commands that show what an encoder has learned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tubelet.config.options import Device, ManifestFile, Model, Preprocess, Trust, settings


def neighbours(
    model: Model,
    manifest: ManifestFile,
    video: Annotated[Path, typer.Argument(help="any video file")],
    out: Annotated[
        Path | None,
        typer.Option(help="picture of the clips to write, ending in .png, .gif or .mp4; default: only the list"),
    ] = None,
    k: Annotated[int, typer.Option("--k", help="number of neighbours", min=1)] = 5,
    features: Annotated[
        Path | None,
        typer.Option(help="file that `tubelet features` wrote of MANIFEST with MODEL; default: computed now"),
    ] = None,
    num_workers: Annotated[int, typer.Option(help="number of processes that read videos")] = 2,
    device: Device = "cpu",
    preprocess: Preprocess = None,
    trust: Trust = None,
) -> None:
    """Find the videos of a manifest whose features are nearest to those of a video. Labels are shown, but not used."""
    from tubelet.evaluate.device import on_device
    from tubelet.evaluate.neighbours import find_neighbours, save_neighbours
    from tubelet.evaluate.pictures import check_picture
    from tubelet.weights.load import load_encoder

    if out is not None:
        check_picture(out)
    encoder = on_device(load_encoder(model, trust=trust or [], preprocess=settings(preprocess)), device)
    found = find_neighbours(encoder, manifest, video, k, features, num_workers)
    print(*found, sep="\n")
    if out is not None:
        print(save_neighbours(encoder, manifest, video, found, out))


def colours(
    model: Model,
    videos: Annotated[list[Path], typer.Argument(help="any video files; their colours compare with each other")],
    out: Annotated[Path, typer.Option(help="picture to write, ending in .gif, .png or .mp4")],
    device: Device = "cpu",
    preprocess: Preprocess = None,
    trust: Trust = None,
) -> None:
    """Draw the features of videos as colours: the three largest principal components of the tokens. What the encoder
    takes for alike has the same colour."""
    from tubelet.evaluate.device import on_device
    from tubelet.evaluate.feature_colours import save_colours
    from tubelet.evaluate.pictures import check_picture
    from tubelet.weights.load import load_encoder

    check_picture(out)
    encoder = on_device(load_encoder(model, trust=trust or [], preprocess=settings(preprocess)), device)
    print(save_colours(encoder, videos, out))


def demo(
    model: Model,
    host: Annotated[
        str, typer.Option(help="address to listen on; any other than the default lets other machines in")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on; 0: any that is free", min=0, max=65535)] = 7860,
    max_mb: Annotated[int, typer.Option(help="largest upload in MB", min=1)] = 200,
    device: Device = "cpu",
    preprocess: Preprocess = None,
    trust: Trust = None,
) -> None:
    """Serve a page on this machine to try a model: drop a video, see its classes over time, what a masked model
    reconstructs, and where it looks. Ctrl-C ends it."""
    from functools import partial

    from tubelet.evaluate.device import on_device
    from tubelet.evaluate.reconstruction import can_reconstruct
    from tubelet.page.answer import answer
    from tubelet.page.server import serve
    from tubelet.weights.load import load_masking, load_model

    loaded = on_device(load_model(model, trust=trust or [], preprocess=settings(preprocess)), device)
    masking = load_masking(model, trust=trust or []) if can_reconstruct(loaded) else None
    serve(partial(answer, loaded, masking), host, port, max_mb * 10**6, f"{model}: {type(loaded).__name__}")
