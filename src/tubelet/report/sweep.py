"""One CSV per sweep: the settings that differ between its runs, and their last metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from tubelet.report.table import find_runs, write_csv


class CollectSweep(Callback):
    """A Hydra callback that writes `sweep.csv` into the sweep's directory when its last run has ended."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        if any(folder.glob("*/config.yaml")):
            path = folder / "sweep.csv"
            write_csv(find_runs(folder), path)
            print(f"sweep: {path}\n{path.read_text()}", end="")
