"""Runs that are killed at a chosen moment. Each is a process of its own, forked from one that has done the imports."""

from __future__ import annotations

import functools
import io
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra import compose, initialize_config_dir

from tubelet import run, storage
from tubelet.config import user_errors
from tubelet.runtime import saving

CONF = str(Path(__file__).parents[1] / "conf")
KILL, KILLS = "TEST_KILL", "kills.txt"
PACE = "TEST_PACE"
"""Seconds that each batch takes longer, so that a random time is likely to lie within the training."""
PLACES = ("writing", "between_renames", "saved", "validation", "validated", "epoch_end", "epoch_start", "one_rank",
          "worker", "forward", "backward", "updated")  # fmt: skip
"""In the order in which a run comes by them once a step is done."""


@functools.cache
def _context() -> Any:
    """There is one server in a process: another test may have started it, without these imports."""
    forkserver._forkserver._stop()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tubelet.run", "tubelet.callbacks.ema", "tubelet.demo.render", "wandb"])
    return context


class Killer(L.Callback):
    """Sends SIGKILL when a step and a place are reached, which the environment names: TEST_KILL=PLACE:STEP. STEP counts
    the optimizer steps that are done.
    """

    def __init__(self) -> None:
        place, _, step = os.environ.get(KILL, "nowhere:0").partition(":")
        assert place in (*PLACES, "nowhere")
        self.place, self.step = place, int(step)
        self.trainer: Any = None
        self.written: int | None = None  # step of the checkpoint that a thread writes while training continues

    def reached(self, place: str) -> bool:
        """For the first time, over all processes that continue the run."""
        saving_ = place in ("writing", "between_renames", "saved") and self.written is not None
        here = place == self.place and self.step == (self.written if saving_ else self.trainer.global_step)
        return here and f"{place}:{self.step}" not in hits(Path())

    def kill(self, place: str) -> None:
        if not self.reached(place):
            return
        if place == "one_rank":
            if self.trainer.global_rank == self.trainer.world_size - 1:
                note(place, self.step)
                os.kill(os.getpid(), signal.SIGKILL)
        elif place == "worker":
            if self.trainer.global_rank == 0:
                note(place, self.step)
                workers = multiprocessing.active_children()
                os.kill(workers[self.step % len(workers)].pid or 0, signal.SIGKILL)
                time.sleep(5)  # the loader's signal handler raises here, or else it will at the next batch
                self.place = "nowhere"
        else:
            if self.trainer.global_rank == 0:
                note(place, self.step)
                os.killpg(0, signal.SIGKILL)
            time.sleep(100)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.trainer = trainer
        write, put, checksum = saving.Saver.write, storage.put, storage.checksum

        def killed_while_writing(saver: Any, checkpoint: Any, path: Any) -> None:
            self.written = checkpoint["global_step"]
            if self.reached("writing"):
                whole = io.BytesIO()
                torch.save(checkpoint, whole)
                Path(path).write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
                self.kill("writing")
            write(saver, checkpoint, path)

        def killed_before_sealing(file: Path) -> tuple[int, int]:
            self.kill("writing")  # of a directory
            return checksum(file)

        def killed_beside_put(temporary: Path, path: Path) -> None:
            if path.name == saving.LAST:
                self.kill("between_renames")
            put(temporary, path)
            if path.name == saving.LAST:
                self.kill("saved")

        saving.Saver.write = killed_while_writing  # type: ignore[method-assign]
        storage.put, storage.checksum = killed_beside_put, killed_before_sealing

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        optimizer = pl_module.optimizers(use_pl_optimizer=False)
        optimizer.register_step_post_hook(lambda *_: self.kill("updated"))  # before the step is counted

    def on_train_epoch_start(self, *_: Any) -> None:
        self.kill("epoch_start")

    def on_train_batch_start(self, *_: Any) -> None:
        time.sleep(float(os.environ.get(PACE, 0)))
        self.kill("one_rank")
        self.kill("worker")

    def on_before_backward(self, *_: Any) -> None:
        self.kill("forward")

    def on_after_backward(self, *_: Any) -> None:
        self.kill("backward")

    def on_validation_batch_end(self, *_: Any) -> None:
        self.kill("validation")

    def on_validation_epoch_end(self, *_: Any) -> None:
        self.kill("validated")

    def on_train_epoch_end(self, *_: Any) -> None:
        self.kill("epoch_end")


class Recorder(L.Callback):
    """Appends a line to seen.txt for every batch: the optimizer step it is of, and the videos."""

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, _: Any, batch: Any, *__: Any) -> None:
        step = trainer.fit_loop.total_batch_idx // trainer.accumulate_grad_batches
        with open("seen.txt", "a") as file:
            file.write(" ".join(map(str, [step, *batch.index.tolist()])) + "\n")


def note(place: str, step: int) -> None:
    with open(KILLS, "a") as file:
        file.write(f"{place}:{step}\n")


def hits(folder: Path) -> list[str]:
    """PLACE:STEP of the kills so far, in their order."""
    file = folder / KILLS
    return file.read_text().splitlines() if file.exists() else []


class Run:
    """`ranks` processes in one process group, as torchrun would start them, in the directory `cwd`; what they print
    goes to `cwd`/rank0.txt, ...
    """

    def __init__(self, cwd: Path, arguments: list[str], ranks: int = 1, kill: str = "", **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                  "WORLD_SIZE": str(ranks), **({KILL: kill} if kill else {}), **environment}  # fmt: skip
        self.cwd, self.ranks = cwd, []
        for rank in range(ranks):
            variables = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            group = self.ranks[0].pid if rank else 0
            process = _context().Process(target=_child, args=(cwd, arguments, variables, rank, group))
            process.start()
            self.ranks.append(process)

    def kill_after(self, seconds: float) -> bool:
        """All of them, and their loaders' workers, at once; False if they had ended before."""
        self.ranks[0].join(seconds)
        if self.ranks[0].exitcode is not None:
            return False
        try:
            os.killpg(self.ranks[0].pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not even made its group
            for process in self.ranks:
                process.kill()
        return True

    def wait(self, seconds: float = 120) -> list[int | None]:
        """The ranks' exit codes, negative ones are signals; None for a rank that is still there after that time."""
        end = time.monotonic() + seconds
        for process in self.ranks:
            process.join(max(0.0, end - time.monotonic()))
        codes = [process.exitcode for process in self.ranks]
        for process in self.ranks:
            process.kill()
        return codes

    @property
    def output(self) -> str:
        return "".join((self.cwd / f"rank{rank}.txt").read_text() for rank in range(len(self.ranks)))


def _child(cwd: Path, arguments: list[str], environment: dict[str, str], rank: int, group: int) -> None:
    multiprocessing.set_start_method("fork", force=True)  # of the loaders' workers, as in any other process
    os.chdir(cwd)
    output = os.open(f"rank{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)
    _until(lambda: os.setpgid(0, group))  # the first rank makes the group
    os.environ.update(environment)
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("config", arguments)
    with user_errors():
        run.main(cfg)


def _until(function: Callable[[], None]) -> None:
    while True:
        try:
            return function()
        except OSError:
            time.sleep(0.01)
