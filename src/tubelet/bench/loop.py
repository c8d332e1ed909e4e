"""What a step of a run costs beside the step itself: loader, logging, callbacks and checkpoints.

The run is a real one, with all its callbacks and loggers. Blocks of its steps alternate with blocks of bare steps
(forward, backward, clipping, update) of the same model, optimizer and batch in the same process, so that both see the
same machine. The first blocks are a warm-up and are dropped. Each fourth block saves a checkpoint; it is judged alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any, cast

import lightning as L
import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from tubelet import run
from tubelet.config.check import check
from tubelet.config.compose import compose
from tubelet.data.datamodule import TrainingLoader
from tubelet.data.dataset import Batch
from tubelet.data.manifest import Manifest
from tubelet.demo.render import render
from tubelet.methods.base import Method, method_of

BLOCK, SAVE_BLOCKS, WARM_UP = 10, 4, 2
"""Steps per block; blocks from one save to the next; blocks that are dropped."""
STEP = 300.0
"""Milliseconds of the step that the overhead is compared with."""
SAVE_EVERY = 500
"""Steps from one save to the next in a run."""


@dataclass
class Times:
    """Milliseconds per step of each block: on the clock, and of the processor (all threads of this process)."""

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def add(self, begun: tuple[float, float], ended: tuple[float, float]) -> None:
        self.clock.append(1000 * (ended[0] - begun[0]) / BLOCK)
        self.processor.append(1000 * (ended[1] - begun[1]) / BLOCK)


@dataclass(frozen=True)
class Overhead:
    """Milliseconds per step; `save` is how much longer one save makes the steps around it, all together."""

    bare: float
    loop: float
    overhead: float
    processor: float
    data_wait: float
    save: float

    @property
    def shares(self) -> tuple[float, float]:
        """All of it as a share of a step of `STEP` milliseconds: by the clock, and by the processor, which does not
        count waiting, but on a machine with other work is the better measure.
        """
        save = self.save / SAVE_EVERY
        return (self.overhead + save) / STEP, (self.processor + save) / STEP


class BareBlocks(L.Callback):
    """After every `BLOCK` steps of the run, as many bare steps."""

    def __init__(self) -> None:
        self.loop, self.bare = Times(), Times()
        self.waits: list[float] = []
        self._resumed: tuple[float, float] | None = None
        self._waited = 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.global_step % BLOCK:
            return
        method = method_of(trainer)
        waited = cast(TrainingLoader, trainer.train_dataloader).waited
        now = _now(method)
        if self._resumed is not None:
            self.loop.add(self._resumed, now)
            self.waits.append(1000 * (waited - self._waited) / BLOCK)
            for _ in range(BLOCK):
                bare_step(trainer, method, batch)
            self.bare.add(now, _now(method))
        self._resumed, self._waited = _now(method), waited

    def overhead(self) -> Overhead:
        # block 0 starts after the first BLOCK steps; a save at step n is made in the block that follows step n
        blocks = range(WARM_UP, len(self.loop.clock))
        saving = [block for block in blocks if (block + 1) % SAVE_BLOCKS == 0]
        plain = [block for block in blocks if block not in saving]
        more = [loop - bare for loop, bare in zip(self.loop.clock, self.bare.clock, strict=True)]
        processor = [loop - bare for loop, bare in zip(self.loop.processor, self.bare.processor, strict=True)]
        usual = median(more[block] for block in plain)
        return Overhead(
            bare=median(self.bare.clock[block] for block in plain),
            loop=median(self.loop.clock[block] for block in plain),
            overhead=usual,
            processor=median(processor[block] for block in plain),
            data_wait=median(self.waits[block] for block in plain),
            save=BLOCK * (median(more[block] for block in saving) - usual),
        )


def bench(overrides: Sequence[str] = (), saves: int = 4) -> Overhead:
    """Train `experiment=demo_pretrain`, changed by `overrides`, until it has saved `saves` times. Raises ValueError if
    fewer than one is asked for, or for a mistake in the overrides.
    """
    if saves < 1:
        raise ValueError(f"saves must be at least 1, got {saves}")
    with TemporaryDirectory() as directory:
        return _measure(Path(directory), overrides, steps=BLOCK * (WARM_UP + SAVE_BLOCKS * (saves + 1)))


def _measure(directory: Path, overrides: Sequence[str], steps: int) -> Overhead:
    cfg = compose(
        f"data.train={_one_long_epoch(directory / 'motions', steps)}",
        *("data.val=null", "data.test=null", "data.prepare=null"),
        *(f"trainer.max_steps={steps}", f"trainer.log_every_n_steps={BLOCK}", f"callbacks.throughput.window={BLOCK}"),
        f"callbacks.checkpoints.every_n_steps={BLOCK * SAVE_BLOCKS}",
        *overrides,
    )
    check(cfg)
    os.environ.setdefault("WANDB_MODE", "offline")
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    model, masking = run.start_model(config)
    method, data, trainer = run.build(config, model, masking, directory)
    blocks = BareBlocks()
    cast(Any, trainer).callbacks.append(blocks)
    try:
        trainer.fit(method, datamodule=data)
    finally:
        run.close_wandb()
    return blocks.overhead()


def _one_long_epoch(directory: Path, steps: int) -> Path:
    """A manifest that names a few demo videos often enough for `steps` batches of 16."""
    small = Manifest.read(render(directory, train_per_class=2, val_per_class=1) / "train.csv")
    paths = [small.record(i).path for i in range(len(small))]
    many = directory / "many.csv"
    Manifest.from_columns(directory, {"path": paths * steps}).write(many)
    return many


def bare_step(trainer: L.Trainer, method: Method, batch: Batch) -> None:
    """Forward, backward, clipping and update, as a script without any framework would do them."""
    optimizer = method.optimizers(use_pl_optimizer=False)
    assert isinstance(optimizer, torch.optim.Optimizer)
    with trainer.precision_plugin.forward_context():
        loss = method.step(batch).loss
    optimizer.zero_grad()
    loss.backward()
    if method.optim.clip_grad is not None:
        torch.nn.utils.clip_grad_norm_(method.parameters(), method.optim.clip_grad)
    optimizer.step()


def print_overhead(result: Overhead) -> None:
    table = Table("milliseconds", "per step", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.columns[1].justify = "right"
    for name, value in (
        ("bare step", result.bare),
        ("step of a run", result.loop),
        ("more than bare", result.overhead),
        ("more than bare, processor", result.processor),
        ("of it, wait for the loader", result.data_wait),
        (f"one save / {SAVE_EVERY}", result.save / SAVE_EVERY),
    ):
        table.add_row(name, f"{value:.1f}")
    clock, processor = result.shares
    Console().print(
        table,
        f"\nloader, logging, callbacks and checkpoints, as a share of a step of {STEP:g} ms: {clock:.1%} by the clock, "
        f"{processor:.1%} by the processor",
    )


def _now(method: Method) -> tuple[float, float]:
    if method.device.type == "cuda":
        torch.cuda.synchronize()
    return perf_counter(), process_time()
