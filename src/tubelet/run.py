"""One run: the config becomes objects, and they fit, validate or test. train.py and the tests call `main`."""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.loggers.logger import Logger
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from tubelet.config import check
from tubelet.data.datamodule import VideoDataModule
from tubelet.data.randomness import generator, key
from tubelet.evaluate.reconstruction import can_reconstruct
from tubelet.loggers.complete import complete
from tubelet.loggers.metrics_csv import MetricsCSV
from tubelet.loggers.wandb import RunLogger, close_wandb
from tubelet.masking import Mask, MaskGenerator, with_length
from tubelet.methods.base import Method, Plan, method_of
from tubelet.models.base import VideoModel
from tubelet.models.masked import MaskedModel
from tubelet.nodes import OWN, Node, packages_of, target_of
from tubelet.nodes import build as build_node
from tubelet.optim.adamw import AdamW
from tubelet.runtime import run_directory, signals
from tubelet.runtime.differences import identity
from tubelet.runtime.facts import write_facts
from tubelet.runtime.fit_loop import FitLoop
from tubelet.runtime.ranks import Ranks, join
from tubelet.runtime.requeue import Interrupted, end_process
from tubelet.runtime.run_directory import RunDirectory
from tubelet.storage import write_text
from tubelet.videos.processes import check_main_is_guarded
from tubelet.weights import adopt, teachers
from tubelet.weights.load import read, start_from
from tubelet.weights.timm_vit import TIMM

console = Console()
# Lightning's warnings do not apply here: our sampler does resume in the middle of an epoch (tubelet/data/sampler.py)
# and the teachers of a target are to stay in eval mode
_IRRELEVANT_WARNINGS = (
    "not resumable|No positive samples found|does not have many workers|treespec|LeafSpec|overrides the configure_model"
    "|in eval mode at the start"
)
warnings.filterwarnings("ignore", message=f".*({_IRRELEVANT_WARNINGS}).*")
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
CHOSEN = "TUBELET_CHOSEN"
"""Environment variable in which rank 0 passes directory and checkpoint (JSON) to the ranks that Lightning launches."""


def main(cfg: DictConfig, unchosen: dict[str, Node] | None = None) -> dict[str, float]:
    """Run `cfg` and return the last value of every logged metric. Raises ValueError for a user's mistake, and
    SystemExit when a signal has stopped the run.

    unchosen: the groups that `weights` decide, see tubelet.config.unchosen; None: there are none.
    """
    check(cfg)
    with signals.all_noted():
        try:
            return run_once(cfg, unchosen)[0]
        except Interrupted as interrupted:
            end_process(interrupted)


def run_once(
    cfg: DictConfig, unchosen: dict[str, Node] | None = None, directory: Path | None = None
) -> tuple[dict[str, float], Path]:
    """What `main` does, for a caller that has checked the config and deals with signals (raises Interrupted). Returns
    the run directory, too. `directory`: where the run is to be; None: where the config or a sweep says.
    """
    check_main_is_guarded()
    return _run(_with_parts_of_weights(cfg, unchosen or {}), directory)


def _with_parts_of_weights(cfg: DictConfig, unchosen: dict[str, Node]) -> DictConfig:
    """A config in which the groups that nobody chose are those of the weights. Prints what this changes."""
    if not unchosen or cfg.weights is None or str(cfg.weights).startswith(TIMM):
        return cfg
    source, new = read(cfg.weights), copy.deepcopy(cfg)
    parts = {"encoder": adopt.encoder_of, "preprocess": adopt.preprocess_of}
    if cfg.stage != "fit":
        parts |= {group: partial(adopt.whole_of, group) for group in ("decoder", "target")}
    for group, part_of in parts.items():
        if group not in unchosen or cfg[group] is None:
            continue
        before: Any = OmegaConf.to_container(cfg[group], resolve=False)
        after = part_of(source, before, unchosen[group], packages_of(OmegaConf.to_container(cfg)))
        if changed := adopt.changes(before, after):
            console.print(f"{group}: that of weights={cfg.weights}, {', '.join(changed)}", soft_wrap=True)
        OmegaConf.update(new, group, after, merge=False, force_add=True)
    check(new)
    return new


def _run(cfg: DictConfig, fixed: Path | None) -> tuple[dict[str, float], Path]:
    started = perf_counter()
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    model, masking = start_model(config)  # first, so that a model that cannot be built leaves no run directory
    run, checkpoint, finished = _directory(cfg, fixed)
    try:
        if finished:
            return _saved_metrics(run), run.path
        if checkpoint is not None and checkpoint.is_dir() != (cfg.trainer.strategy == "fsdp"):
            written = "with" if checkpoint.is_dir() else "without"
            raise ValueError(
                f"{checkpoint} was written {written} trainer.strategy=fsdp and cannot be continued otherwise; "
                f"weights={run.path} starts a new run from it"
            )
        method, data, trainer = build(config, model, masking, run.path)
        _print_settings(cfg, method, data, trainer)
        if trainer.is_global_zero:
            write_facts(run.path, trainer, data)
        with _ranks(cfg).naming_lost_ranks(f"run the same command again with resume={run.path}"):
            metrics = _STAGES[cfg.stage](trainer, method, data, checkpoint)
        if trainer.is_global_zero and not trainer.interrupted:
            _finish(cfg, run, trainer, metrics, perf_counter() - started)
        return metrics, run.path
    finally:
        run.unlock()
        if "LOCAL_RANK" not in os.environ:
            os.environ.pop(CHOSEN, None)
        close_wandb()


def start_model(config: Node) -> tuple[VideoModel, MaskGenerator | None]:
    """The model of a run, initialised from `weights`, and its masking. Raises ValueError if they do not match.

    A description replaces each teacher that the config names: a checkpoint keeps it with the model.
    """
    trust = packages_of(config)
    config["model"] = teachers.describe(config["model"], trust)
    # a key of its own, so that the initial weights do not depend on what else is drawn from the seed
    torch.manual_seed(key(config["seed"], "weights"))
    model: VideoModel = build_node(config["model"], where="model")
    masking = None
    if target_of(config["method"]["_target_"]).masked:
        config["masking"] = with_length(config["masking"], config["trainer"])
        masking = build_node(config["masking"], where="masking")
        model.check_masking(masking)
    taken: tuple[str, ...] = ()
    if config["weights"] is not None:
        # only training may start parts of the model from random values: an evaluation needs all weights from the file
        new_task = config["stage"] == "fit"
        taken = start_from(model, config["weights"], new_task, node=config["model"], trust=trust).taken
    with_target = any(name.startswith("target.") for name in taken)
    if isinstance(model, MaskedModel) and not with_target:
        model.target.start(model.encoder)
    if config["stage"] == "fit" or not with_target:  # an evaluation has the teachers of its weights
        teachers.load_teachers(model, trust)
    return model, masking


def build(
    config: Node, model: VideoModel, masking: MaskGenerator | None, run_dir: Path
) -> tuple[Method, VideoDataModule, L.Trainer]:
    """Method, data and trainer of a run. The data use the clip size and the preprocessing of the model."""
    ranks = _ranks(config)
    data: VideoDataModule = build_node(config["data"], where="data")(
        grid=model.grid,
        preprocess=model.preprocess,
        masking=masking,
        labels=model.labels,
        seed=config["seed"],
        accumulate=config["trainer"]["accumulate"],
        run_dir=run_dir,
    )
    ranks.once_per_node(data.prepare_data)
    data.setup(config["stage"])
    optim: AdamW = build_node(config["optim"], where="optim")
    plan = make_plan(config, data.steps_per_epoch)
    make_method = build_node(config["method"], where="method")
    method: Method = make_method(model=model, model_config=config["model"], optim=optim, plan=plan)
    method.masking_config = None if masking is None else config["masking"]
    loggers: list[Logger] = [MetricsCSV(run_dir / "metrics.csv"), *build_loggers(config, run_dir)]
    callbacks = _build_group(config, "callbacks")
    make_trainer = build_node(config["trainer"], where="trainer")
    trainer: L.Trainer = make_trainer(run_dir=run_dir, callbacks=callbacks, loggers=loggers, plan=plan)
    FitLoop.replace(trainer)
    ranks.check(trainer.num_devices, trainer.num_nodes)
    return method, data, trainer


def build_loggers(config: Node, run_dir: Path) -> list[Logger]:
    """The loggers of the group `logger`, for a run in `run_dir`."""
    return [complete(logger, run_dir, config) for logger in _build_group(config, "logger")]


def _build_group(config: Node, group: str) -> list[Any]:
    """The objects of all nodes in a group, except those that are set to null."""
    named = (config[group] or {}).items()
    return [build_node(node, where=f"{group}.{name}") for name, node in named if node is not None]


def make_plan(config: Node, steps_per_epoch: int) -> Plan:
    """The length of a run, from the config and the size of the data. Lightning could compute it too, but it would build
    the loaders too early.
    """
    steps_per_epoch = max(steps_per_epoch, 1)  # it is 0 where nothing is trained
    max_steps, max_epochs = config["trainer"]["max_steps"], config["trainer"]["max_epochs"]
    steps = max_steps if max_steps > 0 else max_epochs * steps_per_epoch
    steps = min(steps, config["trainer"].get("fast_dev_run") or steps)
    return Plan(steps, steps_per_epoch, config["data"]["batch_size"], config["seed"])


def _ranks(config: Any) -> Ranks:
    return join(config["trainer"]["accelerator"], config["trainer"]["timeout_minutes"])


def _directory(cfg: DictConfig, fixed: Path | None) -> tuple[RunDirectory, Path | None, bool]:
    """The run directory, the checkpoint to continue from (or None), and whether the run is finished already.

    Rank 0 chooses and locks the directory, and prints the reason. All other ranks get the same values, whether
    Lightning, torchrun or srun has started them.
    """
    ranks = _ranks(cfg)
    ranks.compare(identity(cfg))
    if ranks.size == 1 and os.environ.get("LOCAL_RANK", "0") != "0" and CHOSEN in os.environ:
        path, checkpoint = json.loads(os.environ[CHOSEN])
        return RunDirectory(Path(path)), checkpoint and Path(checkpoint), False
    if fixed is None and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        fixed = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))  # a sweep sets the directory of each job
    locked: list[RunDirectory] = []

    def choose() -> tuple[str, str | None, bool]:
        run, checkpoint, reason = run_directory.choose(cfg, fixed)
        console.print(reason, soft_wrap=True)
        locked.append(run)
        return str(run.path), str(checkpoint) if checkpoint else None, run.finished

    path, checkpoint, finished = ranks.from_rank_zero(choose)
    if ranks.size == 1:
        os.environ[CHOSEN] = json.dumps([path, checkpoint])
    return (locked[0] if locked else RunDirectory(Path(path))), checkpoint and Path(checkpoint), finished


def _fit(trainer: L.Trainer, method: Method, data: VideoDataModule, checkpoint: Path | None) -> dict[str, float]:
    trainer.fit(method, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    metrics = _metrics(trainer)
    # the run ended between two validations: the last weights are not validated yet
    unfinished = trainer.global_step % (method.plan.steps_per_epoch * (trainer.check_val_every_n_epoch or 1))
    if unfinished and "val" in data.datasets and not trainer.interrupted:
        trainer.validate(method, datamodule=data, verbose=False)
        metrics |= _metrics(trainer)
    return metrics


def _validate(trainer: L.Trainer, method: Method, data: VideoDataModule, checkpoint: Path | None) -> dict[str, float]:
    trainer.validate(method, datamodule=data, ckpt_path=checkpoint, verbose=False, weights_only=True)
    return _metrics(trainer)


def _test(trainer: L.Trainer, method: Method, data: VideoDataModule, checkpoint: Path | None) -> dict[str, float]:
    trainer.test(method, datamodule=data, ckpt_path=checkpoint, verbose=False, weights_only=True)
    return _metrics(trainer)


_ABOUT = ("name", "steps", "seconds", "device_hours")
"""What summary.json says beside the metrics."""
_STAGES = {"fit": _fit, "validate": _validate, "test": _test}


def _metrics(trainer: L.Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}


def _saved_metrics(run: RunDirectory) -> dict[str, float]:
    """The metrics that a finished run returned."""
    summary = json.loads((run.path / "summary.json").read_text())
    return {name: value for name, value in summary.items() if name not in _ABOUT}


def _print_settings(cfg: DictConfig, method: Method, data: VideoDataModule, trainer: L.Trainer) -> None:
    if not trainer.is_global_zero:
        return
    grid, plan, optim = data.grid, method.plan, method.optim
    tokens = f"{grid.N} ({grid.t} x {grid.h} x {grid.w})"
    if data.masking:
        mask = Mask.from_hidden(data.masking(grid, generator=generator(0))[None])
        tokens = f"{mask.visible.shape[1]} visible + {mask.hidden.shape[1]} hidden to predict, of {tokens}"
    parameters = sum(p.numel() for p in method.parameters())
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    share = "" if trained == parameters else f", {trained / 1e6:.2f} M of them trained"
    ranks, accumulate, repeats = trainer.world_size, cfg.trainer.accumulate, cfg.data.repeats
    rows = {
        "videos": ", ".join(f"{name} {len(part):,}" for name, part in data.datasets.items()),
        "clip": f"{grid.frames} frames x {grid.height} x {grid.width}, stride {cfg.data.stride}",
        "tokens": tokens,
        "parameters": f"{parameters / 1e6:.2f} M ({type(method.model).__name__}){share}",
        "effective batch": f"{plan.batch_size} videos x {repeats} repeats = {plan.batch_size * repeats} clips per step"
        f" ({ranks} device{'s' * (ranks > 1)}, accumulate {accumulate})",
        "learning rate": f"{optim.peak_lr(plan.batch_size):.3g} = {optim.base_lr:g} x {plan.batch_size} / 256",
        "length": f"{plan.total_steps:,} steps = {plan.total_steps / plan.steps_per_epoch:.1f} epochs",
        "device": f"{trainer.strategy.root_device.type}, precision {trainer.precision}",
    }
    console.print(_table(f"{cfg.name}: {cfg.stage}", rows))


def _finish(cfg: DictConfig, run: RunDirectory, trainer: L.Trainer, metrics: dict[str, float], seconds: float) -> None:
    rows = {name: f"{value:.4g}" for name, value in metrics.items()}
    hours = round(seconds * trainer.world_size / 3600, 5)
    about = {"name": cfg.name, "steps": trainer.global_step, "seconds": round(seconds, 1), "device_hours": hours}
    summary = {**about, **metrics}
    write_text(run.path / "summary.json", json.dumps(summary, indent=2) + "\n")
    if cfg.stage == "fit":
        rows["checkpoint"] = str(run.last_checkpoint)
        rows["metrics"] = str(run.path / "metrics.csv")
        for picture in [run.path / "loss.png", *sorted(run.path.glob("*/step_*"))[-2:]]:
            if picture.exists():
                rows[f"picture ({picture.suffix[1:]})"] = str(picture)
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger) and logger.sync_command:
                rows["W&B, offline"] = logger.sync_command
        rows["try next"] = _next_command(run.path, method_of(trainer), cfg)
    console.print(_table(f"{cfg.name}: done in {seconds:.0f} s", rows))


def _next_command(run: Path, method: Method, cfg: DictConfig) -> str:
    """A command that works for the model of this run."""
    named = {"model": method.model_config, "masking": method.masking_config}
    trust = "".join(f" --trust {package}" for package in sorted(packages_of(named) - {OWN}))
    if can_reconstruct(method.model):
        return f"tubelet reconstruct {run} VIDEO --out x.gif{trust}"
    if method.learns_labels:
        return f"tubelet predict {run} VIDEO{trust}"
    return f"tubelet features {run} {cfg.data.val or cfg.data.train} --out features.safetensors{trust}"


def _table(title: str, rows: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a path is never cut short
    for name, value in rows.items():
        table.add_row(name, value)
    return table
