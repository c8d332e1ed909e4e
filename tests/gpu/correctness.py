"""Losses of the first steps: CPU against GPU, float32 against bf16, eager against compiled, whole against killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from results import Results, from_command_line

from tubelet import run
from tubelet.config.compose import compose, conf_directory
from tubelet.demo.render import render
from tubelet.loggers.metrics_csv import read_metrics

ROOT = Path(__file__).parents[2]
EXACT, ROUNDED = 1e-4, 2e-2
"""Largest relative difference from the CPU's float32 losses: in float32, and in bf16."""

QUIET = (
    "logger=none", "callbacks.progress=null", "callbacks.knn=null", "callbacks.reconstructions=null",
    "callbacks.loss_curve=null",
    "data.num_workers=0", "data.prepare=null", "data.train=videos/train.csv", "data.val=null", "data.test=null",
    "trainer.log_every_n_steps=1", "trainer.val_every_n_epochs=100000", "encoder.drop_path=0",
)  # fmt: skip
"""No drop path: a CPU and a GPU draw different random numbers."""


def experiments() -> dict[str, list[str]]:
    """Every demo experiment that trains, and the cross-attention decoder, which is a choice and not an experiment."""
    names = sorted(path.stem for path in (conf_directory() / "experiment").glob("demo_*.yaml"))
    found: dict[str, list[str]] = {}
    for name in names:
        cfg = compose(f"experiment={name}", "weights=none")
        if cfg.stage == "fit":
            needs = [] if "pretrain" in name else ["weights=runs/weights"]
            found[name] = [f"experiment={name}", *needs]
    # all tokens, because a CPU and a GPU would choose others
    return found | {"demo_pretrain decoder=cross_demo": ["experiment=demo_pretrain", "decoder=cross_demo",
                                                         "decoder.predict=1.0"]}  # fmt: skip


class Check:
    def __init__(self, results: Results) -> None:
        self.results = results
        self.device = "trainer=gpu" if results.cuda else "trainer=cpu"
        self.steps = 4 if results.tiny else 20
        self.quiet = (*QUIET, f"trainer.max_steps={self.steps}")
        self.number = 0

    def losses(self, *overrides: str) -> list[float]:
        """The losses of a run in this process."""
        self.number += 1
        name = f"run{self.number}"
        run.main(compose(*self.quiet, *overrides, f"name={name}"))
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        return read_losses(name)

    def compare(self, check: str, found: list[float], expected: list[float], limit: float) -> None:
        if len(found) != len(expected):
            return self.results.add(check, False, f"{len(found)} losses instead of {len(expected)}")
        worst = max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))
        return self.results.add(check, worst <= limit, difference=worst, limit=limit, steps=len(found))

    def precision(self, name: str, choices: list[str]) -> None:
        """CPU against device, in float32 and in bf16."""
        cpu = self.losses(*choices, "trainer=cpu", "trainer.precision=32-true")
        for precision, limit in (("32-true", EXACT), ("bf16-mixed", ROUNDED)):
            check = f"{name}: {precision}"
            device = self.results.attempt(
                check, lambda p=precision: self.losses(*choices, self.device, f"trainer.precision={p}")
            )
            if device:
                self.compare(check, device, cpu, limit)

    def variants(self, name: str, choices: list[str], compiled: bool) -> None:
        """Compiled against eager; with FSDP2 on one rank against without."""
        base = [*choices, self.device, "trainer.precision=32-true"]
        eager = self.losses(*base)
        fsdp = [*choices, "trainer=fsdp", "trainer.devices=1", "trainer.precision=32-true"]
        if not self.results.cuda:
            fsdp.append("trainer.accelerator=cpu")
        ways = {"compiled": [*base, "trainer.compile=true"]} if compiled else {"fsdp on one rank": fsdp}
        for way, overrides in ways.items():
            check = f"{name}: {way} against eager"
            found = self.results.attempt(check, lambda o=overrides: self.losses(*o))
            if found:
                self.compare(check, found, eager, EXACT)

    def no_host_sync(self, name: str, choices: list[str]) -> None:
        """Raises what torch raises at the first operation that makes the host wait; the progress bar is on, too."""
        self.losses(
            *choices, self.device, "trainer.log_every_n_steps=1000", "+callbacks.nosync={_target_: hooks.NoHostSync}",
            "callbacks.progress={_target_: lightning.pytorch.callbacks.RichProgressBar}",
        )  # fmt: skip
        self.results.add(f"{name}: no host synchronisation", True)

    def killed(self, name: str, choices: list[str]) -> None:
        """A run that gets SIGKILL in the backward pass of a step, and continues, against one that was left alone."""
        arguments = [*choices, self.device, *self.quiet, "trainer.precision=32-true", "name=killed",
                     f"callbacks.checkpoints.every_n_steps={self.steps // 4}",
                     "+callbacks.killer={_target_: killing.Killer}"]  # fmt: skip
        whole = self.losses(*choices, self.device, "trainer.precision=32-true")
        codes = [
            subprocess.run(
                [sys.executable, str(ROOT / "train.py"), *arguments, *more],
                env={**os.environ, "TEST_KILL": f"forward:{self.steps * 3 // 5}"},
                start_new_session=True,  # the killer kills its whole group
                stdin=subprocess.DEVNULL,
                timeout=max(self.results.left, 1),
            ).returncode
            for more in ([], ["resume=auto"])
        ]
        check = f"{name}: killed and continued"
        if codes != [-signal.SIGKILL, 0]:
            return self.results.add(check, False, f"exit codes {codes}, expected [-9, 0]")
        return self.compare(check, read_losses("killed"), whole, EXACT)


def read_losses(name: str) -> list[float]:
    (directory,) = Path("runs", name).iterdir()
    return [value for _, value in read_metrics(directory / "metrics.csv")["train/loss"]]


def main(results: Results) -> None:
    torch.backends.cudnn.allow_tf32 = False  # that of matrix products is off by default
    check = Check(results)
    work = Path(tempfile.mkdtemp())
    os.chdir(work)
    render("videos", train_per_class=2 if results.tiny else 20, val_per_class=1)
    run.main(compose("experiment=demo_pretrain", "trainer=cpu", *QUIET, "name=weights", "trainer.max_steps=2"))
    (made,) = Path("runs/weights").iterdir()
    every = {
        name: [choice.replace("runs/weights", str(made)) for choice in choices]
        for name, choices in experiments().items()
    }
    plain = every["demo_pretrain"]
    few = ["demo_pretrain"] if results.tiny else ["demo_pretrain", "demo_finetune", "demo_pretrain_timesformer"]
    for name, choices in every.items():
        results.attempt(name, lambda n=name, c=choices: check.precision(n, c), needs=10)
    for name in every if not results.tiny else few:
        results.attempt(
            f"{name}: no host synchronisation", lambda n=name: check.no_host_sync(n, every[n]), needs=5, cuda=True
        )
    results.attempt("demo_pretrain: killed", lambda: check.killed("demo_pretrain", plain), needs=20)
    results.attempt("demo_pretrain: fsdp", lambda: check.variants("demo_pretrain", plain, compiled=False), needs=5)
    for name in few:
        results.attempt(f"{name}: compiled", lambda n=name: check.variants(n, every[n], compiled=True), needs=15)


if __name__ == "__main__":
    main(from_command_line("correctness"))
