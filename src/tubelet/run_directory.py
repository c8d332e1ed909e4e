"""Where a run keeps its things: runs/<experiment>/<date_time>/, chosen anew or taken up again."""

from __future__ import annotations

import fcntl
import os
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf

IGNORED = ("trainer", "resume")
"""Keys that may differ between an interrupted run and the one that continues it."""


class RunDirectory:
    """config.yaml, checkpoints/, metrics.csv, summary.json (only once finished) and, while a process lives, a lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def last_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def finished(self) -> bool:
        return (self.path / "summary.json").exists()

    def create(self, cfg: DictConfig) -> None:
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_atomic(self.path / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))

    def lock(self) -> bool:
        """Take the lock for the life of this process; False if another process holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        handle = (self.path / ".lock").open("w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            return False
        self._lock = handle
        return True

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def matches(self, cfg: DictConfig) -> bool:
        """Whether it was made by an equal config, trainer and resume aside."""
        file = self.path / "config.yaml"
        return file.exists() and _essence(OmegaConf.load(file)) == _essence(cfg)


def choose(cfg: DictConfig, fixed: Path | None = None) -> tuple[RunDirectory, Path | None, str]:
    """The locked directory of this run, the checkpoint to continue from (or None), and one sentence that says why.

    `fixed` is the directory a sweep has set for this job. Raises ValueError if `resume` names what is not there.
    """
    if cfg.resume not in (None, "auto"):
        return _explicit(Path(cfg.resume))
    root = Path("runs") / cfg.name
    if cfg.resume == "auto":
        candidates = [fixed] if fixed else sorted((p for p in root.glob("*") if p.is_dir()), reverse=True)
        for path in candidates:
            run = RunDirectory(path)
            if run.matches(cfg) and run.last_checkpoint.exists() and not run.finished and run.lock():
                return run, run.last_checkpoint, f"resume=auto: continuing {path} from {run.last_checkpoint.name}"
    run = RunDirectory(fixed or _fresh(root))
    if not run.lock():
        raise ValueError(f"run directory {run.path} is in use by another process")
    run.create(cfg)
    reason = "resume=auto: no interrupted run with this config, " if cfg.resume == "auto" else ""
    return run, None, f"{reason}new run directory {run.path}"


def _explicit(path: Path) -> tuple[RunDirectory, Path | None, str]:
    """resume=PATH: a run directory or a checkpoint in one."""
    run = RunDirectory(path.parent.parent if path.suffix == ".ckpt" else path)
    checkpoint = path if path.suffix == ".ckpt" else run.last_checkpoint
    if not checkpoint.exists():
        raise ValueError(f"resume={path}: there is no checkpoint {checkpoint}")
    if not run.lock():
        raise ValueError(f"resume={path}: the run is in use by another process")
    return run, checkpoint, f"continuing {run.path} from {checkpoint.name}"


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


def _essence(cfg: Any) -> Any:
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return {k: v for k, v in plain.items() if k not in IGNORED}


def write_atomic(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text)
    os.replace(temporary, path)
