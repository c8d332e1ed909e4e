"""Where a run keeps its things: runs/<experiment>/<date_time>/, a new one or that of a run to continue."""

from __future__ import annotations

import logging
import os
import time
from datetime import datetime
from pathlib import Path
from typing import IO

from omegaconf import DictConfig, OmegaConf

from tubelet.runtime import slurm
from tubelet.runtime.checkpoints import LAST, PREVIOUS
from tubelet.runtime.differences import changed_schedule, other_work, same_run
from tubelet.storage import clean, damage, put, write_text

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)


LOCK_PATIENCE = 120.0
"""Seconds that a restarted job waits for the lock of its own directory: a dead node's is kept by NFS for a while."""


class RunDirectory:
    """config.yaml, checkpoints/, metrics.csv, summary.json (only once finished), job (the batch job that last worked
    here) and, while a process lives, a lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def last_checkpoint(self) -> Path:
        return self.path / "checkpoints" / LAST

    @property
    def checkpoints(self) -> list[Path]:
        """All, in the order in which a run is continued from them."""
        found = sorted(self.last_checkpoint.parent.glob("*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
        first = [self.last_checkpoint, self.last_checkpoint.with_name(PREVIOUS)]
        return first + [path for path in found if path not in first] if found else []

    @property
    def finished(self) -> bool:
        return (self.path / "summary.json").exists()

    @property
    def job(self) -> str | None:
        file = self.path / "job"
        return file.read_text().strip() if file.exists() else None

    def claim(self, cfg: DictConfig) -> None:
        """The locked directory is now this job's, runs by this config, and is not finished."""
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_text(self.path / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        if job := current_job():
            write_text(self.path / "job", f"{job}\n")
        (self.path / "summary.json").unlink(missing_ok=True)

    def take_up(self, cfg: DictConfig) -> tuple[Path | None, str]:
        """Of the locked directory, the first checkpoint that is whole, all of which is read, and what is wrong with
        those before it. They are put aside: a damaged one must not become the previous one.
        """
        clean(self.last_checkpoint.parent)
        clean(self.path)
        wrong: dict[Path, str] = {}
        for path in self.checkpoints:
            problem = damage(path)
            if problem is None:
                for damaged in wrong:
                    if damaged.exists():
                        put(damaged, damaged.with_name(f"{damaged.name}.damaged"))
                self.warn_of_changes(cfg)
                self.claim(cfg)
                break
            wrong[path] = problem
        else:
            path = None
        return path, "".join(f"{path.name} {problem}; " for path, problem in wrong.items())

    def lock(self, patience: float = 0.0) -> bool:
        """Take the lock for the life of this process; False if another process holds it after `patience` seconds.

        Whether it is seen on other machines is up to the file system: on NFS it is, unless mounted with `nolock`.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        handle = (self.path / ".lock").open("w")
        until = time.monotonic() + patience
        while True:
            try:
                if fcntl is None:
                    raise OSError("no flock")
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= until:
                    handle.close()
                    return False
                time.sleep(1.0)
            except OSError as error:  # Lustre without `-o flock`, say
                log.warning("%s: this file system has no locks (%s); start no second run there", self.path, error)
                break
            else:
                break
        self._lock = handle
        if hasattr(os, "register_at_fork"):  # not on Windows
            # a loader's worker may outlive a killed parent for seconds; it must not hold the lock for it
            os.register_at_fork(after_in_child=handle.close)
        return True

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def matches(self, cfg: DictConfig) -> bool:
        """Whether it was made by an equal config; trainer and resume may differ."""
        return self.config is not None and same_run(self.config, cfg)

    @property
    def config(self) -> DictConfig | None:
        """Of the command that last worked here."""
        file = self.path / "config.yaml"
        config = OmegaConf.load(file) if file.exists() else None
        return config if isinstance(config, DictConfig) else None

    def warn_of_changes(self, cfg: DictConfig) -> None:
        """If `cfg` continues it with another length or learning rate; before `claim`, which writes the new ones."""
        if self.config is not None and (warning := changed_schedule(self.config, cfg)):
            log.warning("continuing %s: %s", self.path, warning)


def current_job() -> str | None:
    """The batch job this process belongs to, which keeps its name when it is requeued: SLURM's, else torchrun's."""
    if job := slurm.job():
        return f"slurm {job}"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return f"torchrun {os.environ['TORCHELASTIC_RUN_ID']}"
    return None


def restarted() -> bool:
    """Whether SLURM has requeued this job, or torchrun started its processes again."""
    again = slurm.restarts() or int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)
    return current_job() is not None and again > 0


def choose(cfg: DictConfig, fixed: Path | None = None) -> tuple[RunDirectory, Path | None, str]:
    """The locked directory of this run, the checkpoint to continue from (or None), and one sentence that says why.

    `fixed` is the directory a sweep has set for this job. A restarted job goes on in its own directory, whatever
    `resume` says: it may have come further than that; if it had finished, the directory is `finished`. Raises
    ValueError if `resume` names what is not there, or another process uses the directory.
    """
    passed = ""
    root = Path("runs") / cfg.name
    candidates = [fixed] if fixed else sorted((p for p in root.glob("*") if p.is_dir()), reverse=True)
    if restarted():
        if cfg.resume not in (None, "auto"):
            candidates.append(_run_of(Path(cfg.resume)).path)
        run, passed = _of_this_job(candidates, cfg)
        if run is not None:
            return _own(run, cfg)
    if cfg.resume not in (None, "auto"):
        return _explicit(Path(cfg.resume), cfg)
    if cfg.resume == "auto":
        for run in map(RunDirectory, candidates):
            if run.matches(cfg) and run.checkpoints and not run.finished and run.lock():
                checkpoint, damaged = run.take_up(cfg)
                if checkpoint:
                    return run, checkpoint, f"resume=auto: {damaged}continuing {run.path} from {checkpoint.name}"
                passed += f"{run.path}: {damaged}"
                run.unlock()
        passed = f"resume=auto: {passed}no interrupted run with this config, "
    run = RunDirectory(fixed or _fresh(root))
    if not run.lock():
        raise ValueError(f"run directory {run.path} is in use by another process")
    run.claim(cfg)
    return run, None, f"{passed}new run directory {run.path}"


def _of_this_job(candidates: list[Path], cfg: DictConfig) -> tuple[RunDirectory | None, str]:
    """Of a job that was restarted, the directory of this command; else what to know about its finished ones. A script
    may run several commands that differ in trainer alone: the one that asks for the same goes first, and one that is
    finished and was asked for something else is not this command's.
    """
    own = [run for run in map(RunDirectory, candidates) if run.job == current_job() and run.matches(cfg)]
    for run in own:
        if not other_work(run.config, cfg):
            return run, ""
    for run in own:
        if not run.finished:
            return run, ""
    if not own:
        return None, ""
    asked = " ".join(other_work(own[0].config, cfg))
    return None, (
        f"the job ({own[0].job}) was restarted, and {own[0].path} of it is finished, but not with {asked}, for which "
        f"this command asks (resume={own[0].path} continues that one): "
    )


def _own(run: RunDirectory, cfg: DictConfig) -> tuple[RunDirectory, Path | None, str]:
    """The directory of a job that was restarted."""
    if not run.lock(LOCK_PATIENCE):
        raise ValueError(f"the run directory {run.path} of this job ({run.job}) is in use by another process")
    if run.finished:
        return run, None, f"the job ({run.job}) was restarted, but {run.path} is finished: nothing to do"
    checkpoint, damaged = run.take_up(cfg)
    if damaged and not checkpoint:
        run.unlock()
        raise ValueError(f"the job ({run.job}) was restarted, but no checkpoint in {run.path} is whole: {damaged}")
    if checkpoint is None:
        run.claim(cfg)
        (run.path / "metrics.csv").unlink(missing_ok=True)
    start = f"from {checkpoint.name}" if checkpoint else "from the beginning, it has no checkpoint yet"
    return run, checkpoint, f"the job ({run.job}) was restarted: {damaged}continuing {run.path} {start}"


def _explicit(path: Path, cfg: DictConfig) -> tuple[RunDirectory, Path | None, str]:
    """resume=PATH: of a run directory, the newest checkpoint that is whole; of a checkpoint, this one and no other."""
    run = _run_of(path)
    if not run.lock():
        raise ValueError(f"resume={path}: the run is in use by another process")
    if path != run.path:
        if problem := damage(path):
            run.unlock()
            raise ValueError(f"resume={path}: {problem}; resume={run.path} takes the newest checkpoint that is whole")
        run.warn_of_changes(cfg)
        run.claim(cfg)
        return run, path, f"continuing {run.path} from {path.name}"
    checkpoint, damaged = run.take_up(cfg)
    if checkpoint is None:
        run.unlock()
        raise ValueError(f"resume={path}: there is no checkpoint {run.last_checkpoint}; {damaged}".rstrip("; "))
    return run, checkpoint, f"resume={path}: {damaged}continuing from {checkpoint.name}"


def _run_of(path: Path) -> RunDirectory:
    """What is meant by a run directory, or by a checkpoint in one."""
    return RunDirectory(path.parent.parent if path.suffix == ".ckpt" else path)


def _fresh(root: Path) -> Path:
    """A new directory named by the time; two runs of one second get different ones."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in ["", *(f"_{i}" for i in range(1, 1000))]:
        path = root / (stamp + suffix)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise RuntimeError(f"no free name under {root}")
