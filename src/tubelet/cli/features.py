"""The command `tubelet features`: of whole videos, or of every window of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tubelet.config.options import Device, Fps, FrameStride, Model, Preprocess, Shard, Trust, settings, whole_numbers


def features(
    model: Model,
    videos: Annotated[
        list[Path], typer.Argument(metavar="MANIFEST|VIDEO", help="list of videos; with --window, videos, too")
    ],
    out: Annotated[
        Path,
        typer.Option(help="file to write, ending in .safetensors; with --window, also .arrow, .npy, or a directory"),
    ],
    per_token: Annotated[bool, typer.Option(help="write all tokens instead of their mean")] = False,
    window: Annotated[
        int | None, typer.Option(help="number of frames of a window; writes features of every window of every video")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="with --window: sampled frames from one window to the next; default: --window")
    ] = None,
    frame_stride: FrameStride = None,
    fps: Fps = None,
    layers: Annotated[
        str | None, typer.Option(help="with --window: blocks to take, from 1, for example 6,12; default: the last")
    ] = None,
    pool: Annotated[
        str, typer.Option(help="with --window: mean of all tokens, spatial mean of each time step, or tokens")
    ] = "mean",
    dtype: Annotated[str, typer.Option(help="with --window: numbers to write, float32 or float16")] = "float32",
    kind: Annotated[
        str, typer.Option("--format", help="with --window: files in a directory, npy, safetensors or arrow")
    ] = "npy",
    shard: Shard = None,
    batch_size: Annotated[int, typer.Option(help="number of videos, or of windows, per batch")] = 8,
    num_workers: Annotated[int, typer.Option(help="number of processes (of windows: threads) that read videos")] = 2,
    device: Device = "cpu",
    preprocess: Preprocess = None,
    trust: Trust = None,
) -> None:
    """Write the features of every video of a list, or with --window of every window of videos. After an interruption,
    the same command continues. With --window, the exit code is 1 if a video cannot be read.
    """
    from tubelet.weights.load import load_encoder

    if window is None:
        from tubelet.evaluate.features import extract_features

        given = {
            "--stride": stride is not None, "--frame-stride": frame_stride is not None, "--fps": fps is not None,
            "--layers": layers is not None, "--shard": shard is not None, "--pool": pool != "mean",
            "--dtype": dtype != "float32", "--format": kind != "npy",
        }  # fmt: skip
        if meaningless := [name for name, value in given.items() if value]:
            raise ValueError(f"{meaningless[0]} is for windows: give --window, too")
        if len(videos) > 1:
            raise ValueError(f"features of whole videos need one list of videos, got {len(videos)}: or give --window")
        encoder = load_encoder(model, trust=trust or [], preprocess=settings(preprocess))
        written = extract_features(
            encoder, videos[0], out, per_token=per_token, batch_size=batch_size, num_workers=num_workers, device=device
        )
        print(written)
        return

    from tubelet.evaluate.dense import Windows, extract_windows, list_videos

    if per_token:
        raise ValueError("--per-token is for whole videos: for windows, --pool tokens writes all tokens")
    wanted = Windows(stride, frame_stride, fps, whole_numbers("--layers", layers), pool, dtype)  # type: ignore[arg-type]
    listed = list_videos(videos, shard)
    encoder = _with_frames(model, window, trust=trust or [], preprocess=settings(preprocess))
    failed = extract_windows(
        encoder, listed, out, wanted, kind=kind, batch_size=batch_size, num_workers=num_workers, device=device
    )
    if len(failed) < len(listed):
        print(out)
    if failed:
        raise typer.Exit(1 if len(failed) < len(listed) else 2)


def _with_frames(model: str, window: int, **how: Any) -> Any:
    """The encoder; its positions in time are interpolated if it was trained on clips of another length."""
    from tubelet.weights.load import load_encoder

    encoder = load_encoder(model, **how)
    return encoder if encoder.grid.frames == window else load_encoder(model, num_frames=window, **how)
