"""A model card (README.md of a hub repository) from what a run knows: recipe, data, results with their protocol,
hardware, hours, licence, how to load it. What is not known is left out or said to be unknown.

The metadata are those of https://huggingface.co/docs/hub/model-cards, with a model-index of the results.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from tubelet.models.base import encoder_of
from tubelet.models.classifier import VideoClassifier
from tubelet.models.masked import MaskedModel
from tubelet.report.protocol import Result, data_name, hours, results
from tubelet.report.table import Run, read_run
from tubelet.runtime.facts import read_facts
from tubelet.storage import write_text
from tubelet.weights.find import find
from tubelet.weights.load import load_model
from tubelet.weights.published import PUBLISHED, Published
from tubelet.weights.save import files_of

_RECIPE = {
    "experiment": "name", "method": "method._target_", "encoder": "encoder._target_", "decoder": "decoder._target_",
    "target": "target._target_", "masking": "masking._target_", "mask ratio": "masking.ratio",
    "rank of the adapters": "method.rank", "frozen blocks": "method.freeze", "weight decay": "optim.weight_decay",
    "layer decay": "optim.layer_decay", "drop path": "encoder.drop_path",
    "precision": "trainer.precision", "seed": "seed",
}  # fmt: skip
_OF_MASKED = ("decoder", "target", "masking", "mask ratio")


def card_of(
    path: str | Path,
    repository: str | None = None,
    licence: str | None = None,
    tests: Sequence[Path] = (),
    *,
    trust: Collection[str] = (),
) -> str:
    """The text of a model card.

    Args:
        path: any weights that `load_model` reads; a run directory, or a checkpoint in one, knows most.
        repository: `owner/name`, under which it will be loaded.
        licence: SPDX identifier, as the hub writes it (`apache-2.0`); None: not stated.
        tests: run directories of `stage=test` of these weights, whose results belong on the card.

    Raises ValueError if the weights cannot be read, or if a test was of other weights.
    """
    model = load_model(path, trust=trust)
    run, step = _run_of(Path(path)), None
    if run is not None:
        step = find(path).contents.get("global_step")
    found = [] if run is None else results(run, step)
    for test in tests:
        found += [result for result in results(_test_of(test, path)) if result.split == "test"]
    base = str(run.config["weights"]) if run is not None and run.config.get("weights") else None
    known = PUBLISHED.get(base.partition("@")[0]) if base else None
    parts = [
        f"---\n{_metadata(model, repository, licence, base, known, found).to_yaml()}\n---\n",
        f"# {repository.rpartition('/')[2] if repository else _name(path, run)}\n",
        _summary(model, run) + "\n",
        _loading(model, repository or "DIRECTORY", trust),
        _input(model),
        _training(model, run, base),
        _results(found),
        _use(model),
        _licence(licence, base, known),
    ]
    return "\n".join(part for part in parts if part)


def write_card(out: str | Path, text: str) -> Path:
    """Write a card, or replace one. Raises ValueError for another file: a README.md may be that of a project."""
    out = Path(out)
    if out.exists() and not re.match(r"---\n.*^- tubelet$", out.read_text(errors="replace"), re.DOTALL | re.MULTILINE):
        raise ValueError(f"{out} exists and is no model card of tubelet: name another file by --out")
    write_text(out, text)
    return out


def _run_of(path: Path) -> Run | None:
    """The run that the weights are of, if its directory is there."""
    for directory in (path, path.parent.parent):
        if (directory / "config.yaml").is_file() and (directory / "checkpoints").is_dir():
            return read_run(directory, directory.name)
    return None


def _test_of(directory: Path, path: str | Path) -> Run:
    if not (directory / "config.yaml").is_file():
        raise ValueError(f"{directory} is no run directory: give that of a run with stage=test")
    run = read_run(directory, directory.name)
    if run.config.get("stage") != "test" or not run.finished:
        raise ValueError(f"{directory} is no finished run with stage=test")
    tested = str(run.config.get("weights"))
    if tested != str(path) and _checkpoint(Path(tested)) != _checkpoint(Path(path)):
        raise ValueError(f"{directory} tested the weights {tested}, and the card is of {path}")
    return run


def _checkpoint(path: Path) -> Path:
    """The checkpoint that is loaded if `path` is given."""
    inside = (path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt", "previous.ckpt"))
    return next((file for file in inside if file.exists()), path).resolve()


def _name(path: str | Path, run: Run | None) -> str:
    return str(run.config.get("name")) if run is not None else Path(path).stem


def _metadata(
    model: Any, repository: str | None, licence: str | None, base: str | None, known: Published | None,
    found: list[Result],
) -> ModelCardData:  # fmt: skip
    transformers = files_of(model)[1] is None
    name = repository.rpartition("/")[2] if repository else "model"
    rows = [
        EvalResult(
            task_type="video-classification", dataset_type=result.data.partition("/")[0], dataset_name=result.data,
            dataset_split=result.split, metric_type=result.type, metric_name=result.name,
            metric_value=round(result.value, 4),
        )
        for result in found
    ]  # fmt: skip
    hub_id = base if base and known else None
    tags = ["video", "tubelet", *(["masked-autoencoder"] if isinstance(model, MaskedModel) else [])]
    return ModelCardData(
        license=licence,
        library_name="transformers" if transformers else "tubelet",
        pipeline_tag="video-classification" if isinstance(model, VideoClassifier) else None,
        base_model=hub_id and hub_id.partition("@")[0],
        tags=tags,
        model_name=name if rows else None,
        eval_results=rows or None,
    )


def _summary(model: Any, run: Run | None) -> str:
    encoder = encoder_of(model)
    millions = sum(p.numel() for p in encoder.parameters()) / 1e6
    what = f"`{type(encoder).__name__}`, {millions:.1f} M weights, tokens of width {encoder.dim}"
    videos = "" if run is None else read_facts(run.path).get("videos", {}).get("train")
    trained = f" on {videos:,} videos" if videos else ""
    if isinstance(model, VideoClassifier):
        kind = "regression" if model.problem == "regression" else f"classifier of {model.num_classes} classes"
        return f"A video {kind}, trained{trained}. Encoder: {what}."
    if isinstance(model, MaskedModel):
        parts = f"`{type(model.decoder).__name__}` predicts `{type(model.target).__name__}`"
        return f"A video encoder pretrained without labels{trained}. Encoder: {what}; {parts} of the hidden tokens."
    return f"A video encoder{trained and f', trained{trained}'}: {what}."


def _loading(model: Any, name: str, trust: Collection[str]) -> str:
    trusted = f", trust={sorted(trust)}" if trust else ""
    lines = [
        f"from tubelet import load_clip, load_model{', predict' if isinstance(model, VideoClassifier) else ''}",
        "",
        f'model = load_model("{name}"{trusted})',
        'clip = load_clip("video.mp4", model)  # [1,C,T,H,W]',
    ]
    if isinstance(model, VideoClassifier):
        lines.append('print(predict(model, "video.mp4"))  # [(label, probability)], over the whole video')
    else:
        lines.append(f"tokens = model{'.encoder' if isinstance(model, MaskedModel) else ''}(clip)  # [1,N,D]")
    text = "## How to load it\n\n```python\n" + "\n".join(lines) + "\n```\n"
    files, reason = files_of(model)
    if reason is None:
        text += f"\ntransformers loads it, too: `{files.config['architectures'][0]}.from_pretrained`.\n"
    return text


def _input(model: Any) -> str:
    grid, preprocess = encoder_of(model).grid, model.preprocess
    dense = "one after the other" if preprocess.stride == 1 else f"one out of {preprocess.stride} of the file"
    sampling = {"dense": dense, "segments": "one frame of each of equal parts"}
    frames = f"{preprocess.fps:g} frames per second" if preprocess.fps else sampling.get(preprocess.sampling, "")
    mean, std = ([round(x, 4) for x in numbers] for numbers in (preprocess.mean, preprocess.std))
    return (
        f"## What it takes\n\nClips of {grid.frames} frames ({frames}) of {grid.height} x {grid.width} pixels, "
        f"{len(mean)} channels, mean {mean}, deviation {std}. `load_clip` prepares them.\n"
    )


def _training(model: Any, run: Run | None, base: str | None) -> str:
    if run is None:
        return "## Training\n\nThese weights came without a record of their training.\n"
    config, facts = run.config, read_facts(run.path)
    rows: dict[str, Any] = {}
    for name, key in _RECIPE.items():
        if config.get(key) is not None and (isinstance(model, MaskedModel) or name not in _OF_MASKED):
            value = config[key]
            rows[name] = str(value).rpartition(".")[2] if key.endswith("_target_") else value
    batch, repeats = config.get("data.batch_size"), config.get("data.repeats", 1)
    rows["learning rate"] = f"{config.get('optim.base_lr')} x {batch} / 256"
    rows["batch"] = f"{batch} videos x {repeats} repeats"
    rows["precision"] = facts.get("precision") or rows.get("precision")  # that of the config may be `auto`
    steps = run.summary.get("steps")
    rows["steps"] = steps if run.finished else f"{steps} so far (unfinished)"
    rows["started from"] = (base if base in PUBLISHED else data_name(base)) if base else "random weights"
    for split, count in facts.get("videos", {}).items():
        rows[f"videos, {split}"] = f"{count:,} ({data_name(config.get(f'data.{split}'))})"
    rows["hardware"] = facts.get("hardware", "not recorded")
    spent = hours(run)
    rows["hours of training"] = "not recorded" if spent is None else f"{spent:.2g}"
    rows["versions"] = ", ".join(f"{name} {number}" for name, number in facts.get("versions", {}).items())
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value not in (None, "")]
    return "## Training\n\n| | |\n|---|---|\n" + "\n".join(lines) + "\n"


def _results(found: list[Result]) -> str:
    if not found:
        return "## Results\n\nNone were measured.\n"
    lines = [f"| {r.name} | {r.value:.4f} | {r.data} | {r.protocol} |" for r in found]
    return "## Results\n\n| metric | value | list | protocol |\n|---|---|---|---|\n" + "\n".join(lines) + "\n"


def _use(model: Any) -> str:
    if isinstance(model, VideoClassifier):
        names = list((model.id2label or {}).values())
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        text = (
            "Videos like those it was trained on. It gives every video one of its own answers, also where none is "
            "right. Its accuracy on other kinds of videos is not known, nor was it tested for decisions about people."
        )
        return f"## Intended use\n\n{text}\n" + (f"\nIt knows: {shown}.\n" if names else "")
    return (
        "## Intended use\n\nA start for fine-tuning, and features for probes and for search. It names no classes by "
        "itself. What it has seen in training limits what its features tell apart.\n"
    )


def _licence(licence: str | None, base: str | None, known: Published | None) -> str:
    own = licence or "not stated by the author: ask before you use it"
    text = f"## Licence\n\n{own}.\n"
    if known is not None and known.licence:
        text += f"\nIt was trained from {base}, which its authors publish under {known.licence}.\n"
    return text
