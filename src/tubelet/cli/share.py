"""Commands that hand a model on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from tubelet.config.options import Model, Preprocess, Trust, settings

Licence = Annotated[
    str | None, typer.Option("--license", help="licence of the weights as the hub writes it, for example apache-2.0")
]
Tests = Annotated[
    list[Path] | None,
    typer.Option("--test", help="run directory of a test (stage=test) of this model; may be given several times"),
]


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


def card(
    model: Model,
    out: Annotated[Path, typer.Option(help="file to write")] = Path("README.md"),
    name: Annotated[str | None, typer.Option(help="owner/name under which it will be on the hub")] = None,
    licence: Licence = None,
    test: Tests = None,
    trust: Trust = None,
) -> None:
    """Write a model card from what the run of a model knows: recipe, data, results and how they were measured,
    hardware, hours, how to load it."""
    from tubelet.report.card import card_of, write_card
    from tubelet.weights.hub import parts_of

    if name is not None:
        parts_of(name)  # a wrong name is said before anything is loaded
    print(write_card(out, card_of(model, name, licence, test or [], trust=trust or [])))


def push(
    model: Model,
    name: Annotated[str, typer.Argument(help="owner/name of the repository, or owner/name@tag")],
    public: Annotated[bool, typer.Option("--public", help="everybody may read it; default: private")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show the files and the card")] = False,
    card: Annotated[
        Path | None,
        typer.Option(help="your own model card, which replaces that of the repository; default: one is written"),
    ] = None,
    licence: Licence = None,
    test: Tests = None,
    trust: Trust = None,
) -> None:
    """Upload a model and its card to the Hugging Face hub, privately unless --public is given."""
    from tubelet.report.card import card_of
    from tubelet.weights.hub import parts_of, push
    from tubelet.weights.load import load_model, read

    if card is not None and not card.is_file():
        raise ValueError(f"--card {card}: there is no such file")
    repository, _ = parts_of(name)
    trusted = trust or []
    text = _text_of(card) if card else card_of(model, repository, licence, test or [], trust=trusted)
    loaded = load_model(model, trust=trusted)
    address, sizes = push(
        loaded, name, text, masking=read(model).masking, public=public, keep_card=card is None, dry_run=dry_run
    )
    for file, size in sizes.items():
        print(f"{size:>15,}  {file}")
    print(f"{text}\nwould go to {address} ({'public' if public else 'private'})" if dry_run else address)


def _text_of(card: Path) -> str:
    try:
        return card.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"--card {card} is no text: {error}") from error


def models() -> None:
    """List the published checkpoints that every MODEL and `weights=` take by their name."""
    from rich.console import Console
    from rich.table import Table

    from tubelet.weights.published import PUBLISHED

    table = Table()
    for column in ("name", "encoder=", "M weights", "learned", "clip", "licence", "top-1 %", "views", "source"):
        table.add_column(column, no_wrap=column == "name")
    for name, it in PUBLISHED.items():
        top1 = "" if it.top1 is None else f"{it.top1:.1f}"
        table.add_row(
            name, it.encoder, f"{it.millions:,.1f}", it.learned, it.clip, it.licence, top1, it.views, it.source
        )
    Console(width=None if Console().is_terminal else 160).print(table)
    print("Accuracies are the authors' (Z: VideoMAE's model zoo, T: TimeSformer's README), of frames x clips x crops.")
    print("Any other directory of the hub in these formats works, too: owner/name, owner/name@revision; and timm:NAME.")
