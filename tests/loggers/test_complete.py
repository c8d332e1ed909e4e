from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger

from tubelet.loggers.complete import complete
from tubelet.loggers.metrics_csv import MetricsCSV
from tubelet.loggers.wandb import wandb_logger


def test_a_logger_of_lightning_stays_as_it_is(tmp_path: Path) -> None:
    made = CSVLogger(save_dir=tmp_path / "x")
    assert complete(made, tmp_path / "run", {}) is made


def test_a_function_gets_what_its_signature_names(tmp_path: Path) -> None:
    def own(run_dir: Path) -> MetricsCSV:
        return MetricsCSV(run_dir / "own.csv")

    found = complete(own, tmp_path, {"seed": 0})
    assert isinstance(found, MetricsCSV)
    assert found.path == tmp_path / "own.csv"
    ours: Any = complete(partial(wandb_logger, mode="offline"), tmp_path, {"seed": 0})
    assert ours.arguments["config"] == {"seed": 0}
    assert ours.arguments["dir"] == str(tmp_path)


def test_what_the_node_sets_is_kept(tmp_path: Path) -> None:
    inside = complete(partial(CSVLogger), tmp_path / "run", {})
    outside = complete(partial(CSVLogger, save_dir=tmp_path / "x"), tmp_path / "run", {})
    assert Path(str(inside.save_dir)) == tmp_path / "run"
    assert Path(str(outside.save_dir)) == tmp_path / "x"
