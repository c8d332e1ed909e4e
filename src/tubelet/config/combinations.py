"""Combinations that cannot work, in a config whose keys are known and whose values have their types."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tubelet.clip import ClipGrid
from tubelet.config.stand_ins import NotImported, find_target, standing_in
from tubelet.data.splits import STAGES
from tubelet.nodes import build, parameters_of


def impossible(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Full key -> what is wrong. Within `stand_ins()` only what can be known without torch."""
    yield from _bad_grid_or_mask(config["encoder"], config["masking"] if _hides(config) else None)
    yield from _bad_batch(config["data"], config["trainer"])
    yield from _missing_files(config["data"], config["stage"])
    yield from _bad_method(config)
    yield from _bad_trainer(config)
    if config["resume"] not in (None, "auto") and not Path(config["resume"]).exists():
        yield "resume", f"no such file or directory: {config['resume']}"


def _bad_grid_or_mask(encoder: dict[str, Any], masking: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    """The tubelets must tile the clip; the mask must hide some of them and leave some visible."""
    sizes = [_argument(encoder, key) for key in ("num_frames", "image_size", "tubelet_size", "patch_size")]
    if not all(isinstance(size, int) for size in sizes):
        return
    frames, image, tubelet, patch = sizes
    try:
        grid = ClipGrid(frames, image, image, tubelet, patch)
    except ValueError as error:
        yield "encoder", str(error)
        return
    if masking is None:
        return
    try:
        _draw(masking, grid)
    except ValueError as error:
        yield ("masking.ratio" if "ratio" in masking else "masking"), str(error)


def _draw(masking: dict[str, Any], grid: ClipGrid) -> None:
    """Try a masking once. Raises ValueError if it cannot hide what it should. Without torch it comes as far as the
    first random number, and most maskings have checked their arguments by then.
    """
    if standing_in():
        with suppress(NotImported):
            build(masking)(grid, generator=None)
        return
    from tubelet.data.randomness import generator
    from tubelet.masking import Mask

    Mask.from_hidden(build(masking)(grid, generator=generator("check"))[None])


def _bad_batch(data: dict[str, Any], trainer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """`batch_size` is global. Devices that are only known at run time ('auto', -1) are left to the run."""
    batch, devices = _argument(data, "batch_size"), _argument(trainer, "devices")
    devices = len(devices) if isinstance(devices, list) else devices
    if not isinstance(batch, int) or not isinstance(devices, int) or devices < 1:
        return
    ranks = devices * (_argument(trainer, "num_nodes") or 1)
    accumulate = _argument(trainer, "accumulate") or 1
    if batch < 1 or batch % (ranks * accumulate):
        yield "data.batch_size", f"{batch} is not divisible by {ranks} ranks x {accumulate} accumulated batches"


def _bad_method(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A method that hides tokens needs a masking; and weights that were promised are named."""
    if _hides(config) and config["masking"] is None:
        yield "masking", "a value is missing, this method hides tokens"
    if config["stage"] == "fit" and config["weights"] is None and _argument(config["method"], "from_weights"):
        yield "weights", "a value is missing: the pretrained weights to start from (without any: method=scratch)"


def _bad_trainer(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a strategy or a precision cannot do, or does not do well."""
    trainer, callbacks = config["trainer"], (config["callbacks"] or {}).values()
    sharded, precision = _argument(trainer, "strategy") == "fsdp", _argument(trainer, "precision")
    accelerator = _argument(trainer, "accelerator")
    averages = any(_averages(node) for node in callbacks if node)
    if precision == "16-mixed" and (accelerator == "cpu" or (accelerator == "auto" and not _has_gpu())):
        yield "trainer.precision", "16-mixed needs a GPU; a CPU has 32-true, bf16-mixed and bf16-true"
    if precision == "16-mixed" and sharded:
        yield "trainer.precision", "16-mixed does not go with trainer.strategy=fsdp: take bf16-mixed"
    if precision == "bf16-true" and averages:
        yield "callbacks.ema", "the steps of an average are too small for the weights of trainer.precision=bf16-true"
    target = config["target"] or {}
    if precision == "bf16-true" and _hides(config) and target.get("teacher") is None and _averages(target):
        yield (
            "trainer.precision",
            "the steps of the target's moving average are too small for bf16-true: take bf16-mixed",
        )
    if sharded and averages:
        yield "callbacks.ema", "cannot average the sharded weights of trainer.strategy=fsdp: take ddp"
    if sharded and getattr(find_target(config["method"]["_target_"]), "frozen", False):
        yield "trainer.strategy", "fsdp has nothing to gain from a frozen encoder: probe with ddp"
    if config["stage"] == "fit" and config["encoder"].get("pooler_dim") is not None:
        yield "encoder.pooler_dim", "must be null, no method trains the pooler"


def _averages(node: dict[str, Any]) -> bool:
    """Whether its class keeps a moving average of weights."""
    return bool(getattr(find_target(node["_target_"]), "averages_weights", False)) if node else False


def _has_gpu() -> bool:
    import torch  # asked only where a config leaves the device open and the precision depends on it

    return torch.cuda.is_available()


def _missing_files(data: dict[str, Any], stage: str) -> Iterator[tuple[str, str]]:
    """The manifests this stage reads, unless `data.prepare` makes them. It cannot do without the first of them."""
    if data.get("prepare") is not None:
        return
    for split in STAGES[stage]:
        path = data.get(split)
        if path is None and split in data and split == STAGES[stage][0]:
            yield f"data.{split}", f"a value is missing, stage={stage} reads it"
        elif isinstance(path, str) and not Path(path).exists():
            yield f"data.{split}", f"no such file: {path}"


def _hides(config: dict[str, Any]) -> bool:
    """Whether the method hides tokens; another leaves `masking` unused."""
    return bool(getattr(find_target(config["method"]["_target_"]), "masked", False))


def _argument(node: dict[str, Any], key: str) -> Any:
    """What a node's callable will be given for `key`, None if neither the node nor a default says."""
    parameter = parameters_of(find_target(node["_target_"])).get(key)
    default = None if parameter is None or parameter.default is parameter.empty else parameter.default
    return node.get(key, default)
