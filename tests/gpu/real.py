"""The real thing: transcoded files -> decoding on every core -> training on the device. Is the device kept busy?"""

from __future__ import annotations

import csv
import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any

from results import Results, from_command_line

from tubelet import run
from tubelet.bench.data import render
from tubelet.bench.subjects import TINY
from tubelet.config.compose import compose
from tubelet.data.manifest import Manifest
from tubelet.demo.render import render as render_demo
from tubelet.loggers.metrics_csv import read_metrics
from tubelet.videos.encode import Settings
from tubelet.videos.transcode import transcode

WAYS = {"plain": ("decoder=self_attention",), "cross": ("decoder=cross",)}
STRIDE, FPS = 4, 30
"""Of the source: frames between those of a clip, and per second. The transcoded files keep the clip's frames alone."""


class Watch:
    """Samples the GPU's utilisation in percent, once a second, until it is stopped."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.process = None
        if shutil.which("nvidia-smi") is None:
            return
        command = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "-l", "1"]
        with file.open("w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)

    def stop(self) -> list[float]:
        if self.process is None:
            return []
        self.process.terminate()
        self.process.wait()
        rows = csv.reader(line for line in self.file.read_text().splitlines() if line.count(",") == 1)
        return [float(row[0]) for row in rows if row[0].strip().replace(".", "").isdigit()]


def prepare(results: Results, folder: Path) -> Path:
    """Rendered videos, transcoded for training: short side 256, a key frame every 16 frames, only frames that a clip
    takes. Returns a manifest that lists each of the few often enough for an epoch.
    """
    if results.tiny:
        original = render_demo(folder / "original", train_per_class=1, val_per_class=1) / "train.csv"
    else:
        original = render(folder, videos=4)["480 px, GOP 250"]
    transcode(original, folder / "small", Settings(32 if results.tiny else 256, 16, FPS / STRIDE))
    made = Manifest.read(folder / "small" / original.name)
    paths = [made.record(i).path for i in range(len(made))]
    listed = folder / "many.csv"
    Manifest.from_columns(folder, {"path": paths * (8 if results.tiny else 4096)}).write(listed)
    return listed


def train(results: Results, way: str, manifest: Path, seconds: float) -> None:
    videos, repeats, workers = (2, 2, 1) if results.tiny else (32, 4, min(16, os.cpu_count() or 1))
    overrides = [
        "experiment=pretrain_k400_base", *WAYS[way], "data=manifest", f"data.train={manifest}", "data.stride=1",
        f"data.batch_size={videos}", f"data.repeats={repeats}", f"data.num_workers={workers}", f"name=real_{way}",
        "logger=none", "callbacks.progress=null", "callbacks.knn=null", "callbacks.reconstructions=null",
        "trainer=gpu" if results.cuda else "trainer=cpu", "trainer.precision=bf16-mixed",
        f"trainer.compile={str(results.cuda).lower()}",
        *(["trainer.max_steps=12"] if results.tiny else ["trainer.max_epochs=1000"]),
        f"trainer.log_every_n_steps={1 if results.tiny else 5}", "callbacks.checkpoints.every_n_steps=100000",
        f"callbacks.throughput.warmup={1 if results.tiny else 10}",
        f"callbacks.throughput.window={1 if results.tiny else 5}",
        f"+callbacks.stop={{_target_: hooks.StopAfter, seconds: {seconds}}}", *(TINY if results.tiny else ()),
    ]  # fmt: skip
    watch = Watch(Path("gpu.csv")) if results.cuda else None
    used, begun = children(), perf_counter()
    run.main(compose(*overrides))
    busy = watch.stop() if watch is not None else []
    took = perf_counter() - begun
    (directory,) = Path("runs", f"real_{way}").iterdir()
    curves = read_metrics(directory / "metrics.csv")
    shown = {
        name: [value for _, value in curves.get(name, [])] for name in ("clips_per_s", "data_wait", "tflops", "mfu")
    }
    if not shown["clips_per_s"]:
        raise ValueError(f"{seconds:.0f} s were too few for one figure of speed")
    steps = max(step for step, _ in curves["train/loss"]) + 1
    numbers: dict[str, Any] = {name: median(values) for name, values in shown.items() if values}
    numbers |= {
        "steps": steps,
        "seconds": took,
        "workers": workers,
        "core_ms_per_clip": 1000 * (children() - used) / (steps * videos * repeats),
    }
    if busy:
        numbers["gpu_percent"] = mean(busy[len(busy) // 3 :])  # the first third: start and compiling
    results.add(f"files to device, {way} decoder", True, **numbers)


def children() -> float:
    """Seconds of processor time of the processes that this one has started and that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def main(results: Results) -> None:
    folder = Path(tempfile.mkdtemp())
    os.chdir(folder)
    made = results.attempt("transcoded videos", lambda: prepare(results, folder))
    if made is None:
        return
    for number, way in enumerate(WAYS):
        # the last steps, a checkpoint and the end of the workers take a while, too
        share = (results.left - 10) / (len(WAYS) - number) - 15
        check, seconds = f"files to device, {way} decoder", max(share, 10)
        results.attempt(check, lambda w=way, s=seconds: train(results, w, made, s), needs=15)


if __name__ == "__main__":
    main(from_command_line("real"))
