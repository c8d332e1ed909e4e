"""One CSV per sweep: the settings that differ between its runs, their last metrics, and why a run failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from tubelet.report.table import ERROR, find_runs, write_csv
from tubelet.storage import write_text


class CollectSweep(Callback):
    """A Hydra callback that updates `sweep.csv` in the sweep's directory after every job. A job that fails is a row
    with its reason; Hydra does not call `on_multirun_end` after such a sweep.
    """

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:  # the reason of an earlier attempt
            (Path(config.hydra.runtime.output_dir) / ERROR).unlink(missing_ok=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        if job_return.status == JobStatus.FAILED:
            try:
                _ = job_return.return_value  # raises what the job has raised
            except Exception as error:
                _keep_reason(Path(config.hydra.runtime.output_dir), job_return.cfg, error)
        _collect(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        path = _collect(Path(config.hydra.sweep.dir))
        if path is not None:
            print(f"sweep: {path}\n{path.read_text()}", end="")


def _keep_reason(directory: Path, cfg: DictConfig | None, error: Exception) -> None:
    """Write why a job failed. One that never had a run directory gets a config.yaml, too, to say what it was."""
    directory.mkdir(parents=True, exist_ok=True)
    if cfg is not None and not (directory / "config.yaml").exists():
        write_text(directory / "config.yaml", OmegaConf.to_yaml(cfg))
    write_text(directory / ERROR, f"{type(error).__name__}: {error}\n")


def _collect(folder: Path) -> Path | None:
    try:
        runs = find_runs(folder)
    except ValueError:  # there is none yet
        return None
    path = folder / "sweep.csv"
    write_csv(runs, path)
    return path
