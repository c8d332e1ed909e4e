"""A point of a study: a run and then its probes, in one job. A masking is judged by what the features can do, not by
its loss, so each point of a sweep pretrains and is then probed.

A probe is an ordinary run with its own experiment and `weights=` the point. It continues by itself: the same command
skips what is finished, the point or any of its probes, and continues the rest.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from tubelet.config import check
from tubelet.config.compose import compose_with_unchosen
from tubelet.loggers.results import log_results
from tubelet.nodes import Node
from tubelet.report.table import ERROR
from tubelet.run import build_loggers, console, main, run_once
from tubelet.runtime import signals
from tubelet.runtime.probes import probe_directory, results, unfinished
from tubelet.runtime.ranks import join
from tubelet.runtime.requeue import Interrupted, end_process
from tubelet.storage import write_text

log = logging.getLogger(__name__)

_SHARED = (
    "seed", "data.num_workers", "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy",
    "trainer.precision", "trainer.timeout_minutes", "trainer.requeue",
)  # fmt: skip
"""What a probe has from its point unless its own overrides say something else."""


def train(*overrides: str) -> dict[str, float]:
    """The same as `python train.py OVERRIDES`, from Python and in any directory. Returns and raises what `point` does.

    Example: `train("experiment=demo_pretrain", "seed=1")`.
    """
    return point(*compose_with_unchosen(*overrides))


def point(cfg: DictConfig, unchosen: dict[str, Node] | None = None) -> dict[str, float]:
    """`tubelet.run.main`, and then the probes of `sweep.probes`. Returns the metrics of all: those of the probe
    `linear` begin with `linear/`.

    All probes run, also if one of them fails; then a ValueError names the failed ones. `error.txt` in the directory of
    a failed probe says why. With several ranks the first error ends the job.
    """
    if not cfg.sweep.probes:
        return main(cfg, unchosen)
    check(cfg)
    _check_probes(cfg)
    with signals.all_noted():
        try:
            metrics, run = run_once(cfg, unchosen)
            failed: dict[str, Exception] = {}
            found: dict[str, float] = {}
            new = unfinished(run, cfg.sweep.probes)
            for name in cfg.sweep.probes:
                try:
                    found |= results(name, _probe(cfg, name, run))
                except Interrupted:
                    raise
                except Exception as error:
                    if signals.noted:  # it may have ended a worker of the loader, which the probe then misses
                        print(f"stopped by {signals.noted[0].name}: run the same command again", file=sys.stderr)
                        raise SystemExit(signals.TRY_AGAIN) from error
                    failed[name] = error
                    _keep_reason(probe_directory(run, name), error)
                    if join(cfg.trainer.accelerator, cfg.trainer.timeout_minutes).size > 1:
                        raise
            if new:
                log_results(build_loggers(_plain(cfg), run), run, found)
        except Interrupted as interrupted:
            end_process(interrupted, finds_itself=cfg.resume == "auto")
    if failed:
        reasons = "; ".join(f"{name}: {type(error).__name__}: {error}" for name, error in failed.items())
        raise ValueError(f"probes of {run} failed: {reasons}")
    return metrics | found


def _plain(cfg: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return cast("dict[str, Any]", plain)


def _probe(cfg: DictConfig, name: str, run: Path) -> dict[str, float]:
    directory = probe_directory(run, name)
    (directory / ERROR).unlink(missing_ok=True)
    console.print(f"probe {name} of {run}", soft_wrap=True)
    probe, left = compose_with_unchosen(*_command(cfg, name, run))
    check(probe)
    return run_once(probe, left, directory)[0]


def _command(cfg: DictConfig, name: str, run: Path) -> list[str]:
    """The command line of a probe. What the user says comes last and wins."""
    own = list(cfg.sweep.overrides[name])
    shared = [f"{key}={json.dumps(OmegaConf.select(cfg, key))}" for key in _SHARED]
    if not cfg.logger and not any(override.startswith("logger=") for override in own):
        shared.append("logger=none")
    if "progress" in cfg.callbacks and cfg.callbacks.progress is None:
        shared.append("callbacks.progress=null")
    return [*shared, "resume=auto", f"weights={json.dumps(str(run))}", *own]


def _check_probes(cfg: DictConfig) -> None:
    """Refuse before the point is trained what its probes would refuse after it."""
    ranks = join(cfg.trainer.accelerator, cfg.trainer.timeout_minutes)
    if not ranks.launched and cfg.trainer.strategy != "auto":
        raise ValueError(
            f"sweep.probes with trainer.strategy={cfg.trainer.strategy}: start the processes by torchrun or srun"
        )
    for name in cfg.sweep.probes:
        if name not in cfg.sweep.overrides:
            known = ", ".join(cfg.sweep.overrides) or "none"
            raise ValueError(
                f"sweep.probes: '{name}' has no command (there are: {known}); for example "
                f"'+sweep.overrides.{name}=[\"experiment=demo_{name}\"]'"
            )
        try:
            check(compose_with_unchosen(*_command(cfg, name, Path()))[0])
        except Exception as error:
            raise ValueError(f"sweep.overrides.{name}: {error}") from error


def _keep_reason(directory: Path, error: Exception) -> None:
    log.error("the probe in %s failed: %s", directory, error)
    directory.mkdir(parents=True, exist_ok=True)
    text = "".join(traceback.format_exception(error))
    write_text(directory / ERROR, f"{type(error).__name__}: {error}\n\n{text}")
