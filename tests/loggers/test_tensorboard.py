import json
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tubelet.loggers.metrics_csv import MetricsCSV, read_metrics
from tubelet.loggers.results import log_results
from tubelet.loggers.tensorboard import tensorboard_logger


def test_the_numbers_are_those_of_the_csv(tmp_path: Path) -> None:
    ours, theirs = MetricsCSV(tmp_path / "metrics.csv"), tensorboard_logger(tmp_path)
    for step in range(1, 4):
        for logger in (ours, theirs):
            logger.log_metrics({"train/loss": 1 / step}, step=step)
    (tmp_path / "summary.json").write_text(json.dumps({"steps": 3}))
    log_results([theirs], tmp_path, {"knn/top1": 0.75})
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [(event.step, event.value) for event in read.Scalars("train/loss")]
    assert losses == [(step, pytest.approx(value)) for step, value in read_metrics(ours.path)["train/loss"]]
    assert [(event.step, event.value) for event in read.Scalars("knn/top1")] == [(3, 0.75)]


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install 'tubelet\[tensorboard\]'"):
        tensorboard_logger(tmp_path)
