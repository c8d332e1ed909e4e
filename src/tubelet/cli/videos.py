"""Commands that prepare videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tubelet.config.options import ManifestFile, Shard

Workers = Annotated[int | None, typer.Option(help="number of processes; default: one per core")]
Limit = Annotated[float, typer.Option(help="seconds without a new frame after which a decoder is killed")]


def verify(
    manifest: ManifestFile,
    out: Annotated[Path, typer.Option(help="manifest to write, with the usable videos")],
    workers: Workers = None,
    limit: Limit = 60.0,
    shard: Shard = None,
) -> None:
    """Decode every video once, to find which can be used, how many frames they have, and which reader is right for
    them. The exit code is 1 if a video cannot be used. After an interruption, the same command continues."""
    from tubelet.videos.verify import verify

    raise typer.Exit(1 if verify(manifest, out, workers, limit, shard) else 0)


def merge(
    manifests: Annotated[list[Path], typer.Argument(help="manifests to join, in the order of the result")],
    out: Annotated[Path, typer.Option(help="manifest to write")],
) -> None:
    """Join manifests, for example those of shards. Every video is listed once."""
    from tubelet.videos.shards import merge

    print(f"{out}: {len(merge(manifests, out))} videos")


def transcode(
    manifest: ManifestFile,
    directory: Annotated[
        Path, typer.Argument(help="directory for the new videos and their manifest; it must not hold the originals")
    ],
    short_side: Annotated[
        int, typer.Option(help="short side of the new videos in pixels, even; smaller videos keep their size")
    ] = 256,
    gop: Annotated[int, typer.Option(help="number of frames from one key frame to the next")] = 16,
    fps: Annotated[float | None, typer.Option(help="number of frames per second to keep; default: all")] = None,
    workers: Workers = None,
    limit: Limit = 600.0,
    shard: Shard = None,
) -> None:
    """Re-encode every video for fast training: H.264, small, with key frames close together. The originals are not
    changed. The exit code is 1 if a video could not be read. After an interruption, the same command continues."""
    from tubelet.videos.encode import Settings
    from tubelet.videos.transcode import transcode

    settings = Settings(short_side, gop, fps)
    raise typer.Exit(1 if transcode(manifest, directory, settings, workers, limit, shard) else 0)
