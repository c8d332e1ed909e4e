"""Clips per second of several processes of this machine: workers of a loader, and ranks of a training."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from tubelet.bench.subjects import Step, StepLoss, draw_mask
from tubelet.clip import ClipGrid
from tubelet.config.compose import build_model
from tubelet.data.dataset import TrainingVideos, collate
from tubelet.data.manifest import Manifest
from tubelet.data.sampling import Sampling
from tubelet.data.worker import keep_memory
from tubelet.demo.render import render
from tubelet.masking import tube

GRID = ClipGrid(frames=16, height=96, width=96, tubelet=2, patch=16)
VIDEOS, BATCHES = 8, 32
STEPS, WARM_UP, CLIPS = 8, 2, 16


def clips_per_s_of_workers(folder: Path, count: int) -> float:
    """Clips of 16 x 96 x 96 from the demo videos, which are rendered into `folder` once, loaded by `count` workers."""
    manifest = Manifest.read(render(folder / "videos", train_per_class=1, val_per_class=1) / "train.csv")
    masking = partial(tube, ratio=0.75)
    videos = TrainingVideos(manifest, GRID, Sampling(stride=2), seed=0, masking=masking, reader="pyav")
    dropped = 2 * count  # the workers start, and fill the queue
    slots = [[(epoch, i) for i in range(VIDEOS)] for epoch in range(BATCHES + dropped)]
    loader = DataLoader(
        videos, batch_sampler=slots, num_workers=count, collate_fn=collate, worker_init_fn=keep_memory
    )  # fmt: skip
    begun, clips = 0.0, 0
    for number, batch in enumerate(loader):
        if number == dropped - 1:
            begun = perf_counter()
        elif number >= dropped:
            clips += len(batch)
    return clips / (perf_counter() - begun)


def clips_per_s_of_ranks(count: int) -> float:
    """Training steps of the demo's model on `count` ranks of one thread each, `CLIPS` clips per rank and step. Their
    gradients are reduced (gloo), as with trainer=ddp.
    """
    with TemporaryDirectory() as folder, ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        store = str(Path(folder) / "store")
        seconds = list(pool.map(_train, range(count), [count] * count, [store] * count))
    return count * CLIPS * STEPS / max(seconds)


def _train(rank: int, ranks: int, store: str) -> float:
    """One rank: the seconds of `STEPS` steps."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    try:
        torch.manual_seed(0)
        model = build_model("experiment=demo_pretrain").train()
        grid = model.grid
        clip = torch.randn(CLIPS, model.encoder.in_channels, grid.frames, grid.height, grid.width)
        mask = draw_mask(model, CLIPS, partial(tube, ratio=0.5))
        parallel = DistributedDataParallel(StepLoss(model))
        step = Step(model, lambda: parallel(clip, mask), torch.float32)
        for _ in range(WARM_UP):
            step()
        distributed.barrier()
        begun = perf_counter()
        for _ in range(STEPS):
            step()
        distributed.barrier()
        return perf_counter() - begun
    finally:
        distributed.destroy_process_group()
