"""The run directory, runs/<experiment>/<date_time>/: a new one, or that of the run to continue."""

from __future__ import annotations

import logging
import os
import time
from datetime import datetime
from pathlib import Path
from typing import IO

from omegaconf import DictConfig, OmegaConf

from tubelet.runtime import slurm
from tubelet.runtime.differences import changed_schedule, changed_trainer_settings, changes, same_run
from tubelet.runtime.probes import unfinished
from tubelet.runtime.saving import LAST, PREVIOUS
from tubelet.storage import clean, damage, put, write_text

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)


LOCK_PATIENCE = 120.0
"""Seconds that a restarted job waits for the lock of its directory: NFS keeps the lock of a dead node for a while."""


class RunDirectory:
    """A run directory holds config.yaml, checkpoints/, metrics.csv, summary.json (only when the run is finished), job
    (the batch job that last worked here), and a lock while a process uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def last_checkpoint(self) -> Path:
        return self.path / "checkpoints" / LAST

    @property
    def checkpoints(self) -> list[Path]:
        """All checkpoints, in the order in which they are tried to continue the run."""
        found = sorted(self.last_checkpoint.parent.glob("*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
        # these two come first, whatever their times are
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
        """Mark the locked directory as used by this job, with this config, and as not finished."""
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_text(self.path / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        if job := current_job():
            write_text(self.path / "job", f"{job}\n")
        (self.path / "summary.json").unlink(missing_ok=True)

    def prepare_to_continue(self, cfg: DictConfig) -> tuple[Path | None, str]:
        """Prepare the locked directory for continuing the run. Returns the first checkpoint that is whole, or None, and
        what is wrong with the ones before it. Each checkpoint is read completely. Damaged ones get the ending
        `.damaged`, because last.ckpt becomes previous.ckpt at the next save, and must then be whole.
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
        """Take the lock until this process ends. Returns False if another process holds it after `patience` seconds.

        The file system decides whether other machines see the lock. On NFS they do, unless it is mounted with `nolock`.
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
            except OSError as error:  # for example Lustre without `-o flock`
                log.warning("%s: this file system has no locks (%s); start no second run there", self.path, error)
                break
            else:
                break
        self._lock = handle
        if hasattr(os, "register_at_fork"):  # not on Windows
            # a worker of the loader may live some seconds longer than its killed parent; it must not keep the lock
            os.register_at_fork(after_in_child=handle.close)
        return True

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def matches(self, cfg: DictConfig) -> bool:
        """Whether the config of the run equals `cfg`; `trainer` and `resume` may differ."""
        return self.config is not None and same_run(self.config, cfg)

    @property
    def config(self) -> DictConfig | None:
        """The config of the command that last worked here."""
        file = self.path / "config.yaml"
        config = OmegaConf.load(file) if file.exists() else None
        return config if isinstance(config, DictConfig) else None

    def warn_of_changes(self, cfg: DictConfig) -> None:
        """Warn if `cfg` continues the run with another length or learning rate. Call it before `claim`, which writes
        the new config.
        """
        if self.config is not None and (warning := changed_schedule(self.config, cfg)):
            log.warning("continuing %s: %s", self.path, warning)


def current_job() -> str | None:
    """The batch job of this process, SLURM's or else torchrun's. It keeps its name when it is requeued."""
    if job := slurm.job():
        return f"slurm {job}"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return f"torchrun {os.environ['TORCHELASTIC_RUN_ID']}"
    return None


def restarted() -> bool:
    """Whether SLURM has requeued this job, or torchrun has restarted its processes."""
    again = slurm.restarts() or int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)
    return current_job() is not None and again > 0


def choose(cfg: DictConfig, fixed: Path | None = None) -> tuple[RunDirectory, Path | None, str]:
    """The locked directory of this run, the checkpoint to continue from (or None), and one sentence with the reason.

    `fixed` is the directory that a sweep has set for this job. There `resume=auto` also finds a run that is finished,
    and elsewhere one that is finished but for its probes: its directory is `finished`. A restarted job continues in its
    own directory, whatever `resume` says, because it may be further than the run that `resume` names. If the job had
    finished, the directory is `finished`, too. Raises ValueError if `resume` names something that does not exist, if
    another process uses the directory, or if resume=auto meets another run in `fixed`.
    """
    remarks = ""
    root = Path("runs") / cfg.name
    candidates = [fixed] if fixed else sorted((p for p in root.glob("*") if p.is_dir()), reverse=True)
    if restarted():
        if cfg.resume not in (None, "auto"):
            candidates.append(_run_of(Path(cfg.resume)).path)
        run, remarks = _find_restarted(candidates, cfg)
        if run is not None:
            return _continue_restarted(run, cfg)
    if cfg.resume not in (None, "auto"):
        return _continue_named(Path(cfg.resume), cfg)
    if cfg.resume == "auto":
        probes = OmegaConf.select(cfg, "sweep.probes") or []
        for run in map(RunDirectory, candidates):
            if (fixed or unfinished(run.path, probes)) and _is_finished(run, cfg) and run.lock():
                return run, None, f"resume=auto: {run.path} is finished"
            if fixed:
                _refuse_another(run, cfg)
            if run.matches(cfg) and run.checkpoints and not run.finished and run.lock():
                checkpoint, damaged = run.prepare_to_continue(cfg)
                if checkpoint:
                    return run, checkpoint, f"resume=auto: {damaged}continuing {run.path} from {checkpoint.name}"
                remarks += f"{run.path}: {damaged}"
                run.unlock()
        remarks = f"resume=auto: {remarks}no interrupted run with this config, "
    run = RunDirectory(fixed or _new_directory(root))
    if not run.lock():
        raise ValueError(f"run directory {run.path} is in use by another process")
    run.claim(cfg)
    if fixed:
        (run.path / "metrics.csv").unlink(missing_ok=True)  # of an attempt that had no checkpoint
    return run, None, f"{remarks}new run directory {run.path}"


def _is_finished(run: RunDirectory, cfg: DictConfig) -> bool:
    return run.finished and run.matches(cfg) and not changed_trainer_settings(run.config, cfg)


def _refuse_another(run: RunDirectory, cfg: DictConfig) -> None:
    """Raises ValueError if a directory, which is fixed, holds results that `cfg` does not continue."""
    if run.config is None or not (run.finished or run.checkpoints):
        return
    other = changes(run.config, cfg) or (run.finished and ", ".join(changed_trainer_settings(run.config, cfg)))
    if other:
        raise ValueError(f"resume=auto: {run.path} holds another run ({other}); hydra.sweep.dir=DIR names a new place")


def _find_restarted(candidates: list[Path], cfg: DictConfig) -> tuple[RunDirectory | None, str]:
    """The directory of this command in a job that was restarted, or None and a remark about the job's finished runs.

    A job may run several commands that differ only in `trainer`. A run with the same trainer settings is preferred,
    then any unfinished one. A finished run with other trainer settings belongs to another command.
    """
    own = [run for run in map(RunDirectory, candidates) if run.job == current_job() and run.matches(cfg)]
    for run in own:
        if not changed_trainer_settings(run.config, cfg):
            return run, ""
    for run in own:
        if not run.finished:
            return run, ""
    if not own:
        return None, ""
    asked = " ".join(changed_trainer_settings(own[0].config, cfg))
    return None, (
        f"the job ({own[0].job}) was restarted; its run {own[0].path} is finished, and this command asks for {asked} "
        f"(resume={own[0].path} would continue that run): "
    )


def _continue_restarted(run: RunDirectory, cfg: DictConfig) -> tuple[RunDirectory, Path | None, str]:
    """Continue in the directory of a job that was restarted."""
    if not run.lock(LOCK_PATIENCE):
        raise ValueError(f"the run directory {run.path} of this job ({run.job}) is in use by another process")
    if run.finished:
        return run, None, f"the job ({run.job}) was restarted, but {run.path} is finished: nothing to do"
    checkpoint, damaged = run.prepare_to_continue(cfg)
    if damaged and not checkpoint:  # an error: a new start would hide the loss
        run.unlock()
        raise ValueError(f"the job ({run.job}) was restarted, but no checkpoint in {run.path} is whole: {damaged}")
    if checkpoint is None:
        run.claim(cfg)
        (run.path / "metrics.csv").unlink(missing_ok=True)  # it starts from the beginning, and logs all steps again
    start = f"from {checkpoint.name}" if checkpoint else "from the beginning, it has no checkpoint yet"
    return run, checkpoint, f"the job ({run.job}) was restarted: {damaged}continuing {run.path} {start}"


def _continue_named(path: Path, cfg: DictConfig) -> tuple[RunDirectory, Path | None, str]:
    """resume=PATH: continue a run directory from its newest whole checkpoint, or continue from the named checkpoint."""
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
    checkpoint, damaged = run.prepare_to_continue(cfg)
    if checkpoint is None:
        run.unlock()
        raise ValueError(f"resume={path}: there is no checkpoint {run.last_checkpoint}; {damaged}".rstrip("; "))
    return run, checkpoint, f"resume={path}: {damaged}continuing from {checkpoint.name}"


def _run_of(path: Path) -> RunDirectory:
    """The run directory of a path, which is a run directory itself or a checkpoint in one."""
    return RunDirectory(path.parent.parent if path.suffix == ".ckpt" else path)


def _new_directory(root: Path) -> Path:
    """A new directory, named by the time. Two runs that start in the same second get different names."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in ["", *(f"_{i}" for i in range(1, 1000))]:
        path = root / (stamp + suffix)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise RuntimeError(f"no free name under {root}")
