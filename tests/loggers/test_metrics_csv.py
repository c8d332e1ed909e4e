import resource
from pathlib import Path

import pytest

from tubelet.loggers.metrics_csv import MetricsCSV, read_metrics


def test_columns_grow_and_later_rows_are_dropped(tmp_path: Path) -> None:
    log = MetricsCSV(tmp_path / "metrics.csv")
    log.log_metrics({"train/loss": 1.0}, step=0)
    log.log_metrics({"train/loss": 0.5, "lr": 0.1}, step=10)
    rows = log.rows
    log.log_metrics({"val/loss": 0.7}, step=10)
    curves = read_metrics(tmp_path / "metrics.csv")
    assert curves["train/loss"] == [(0, 1.0), (10, 0.5)]
    assert curves["lr"] == [(10, 0.1)]
    assert curves["val/loss"] == [(10, 0.7)]

    resumed = MetricsCSV(tmp_path / "metrics.csv")
    assert resumed.rows == 3
    resumed.keep(rows)
    resumed.log_metrics({"val/loss": 0.6}, step=10)
    assert read_metrics(tmp_path / "metrics.csv")["val/loss"] == [(10, 0.6)]
    assert read_metrics(tmp_path / "metrics.csv")["train/loss"] == curves["train/loss"]
    assert resumed.rows == 3


@pytest.mark.parametrize("half", ["1,3", "1,3.0,0.12"])
def test_half_a_row_of_a_killed_run_is_dropped(tmp_path: Path, half: str) -> None:
    path = tmp_path / "metrics.csv"
    MetricsCSV(path).log_metrics({"a": 1.0, "b": 2.0}, step=0)
    with path.open("a") as file:
        file.write(half)
    MetricsCSV(path).keep(5)
    assert read_metrics(path) == {"step": [], "a": [(0, 1.0)], "b": [(0, 2.0)]}


def test_rows_wait_for_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsCSV(path)
    log.log_metrics({"a": 1.0}, step=0)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 3, limits[1]))  # half a row has space
    try:
        for step in range(1, 4):
            log.log_metrics({"a": 0.5 / step}, step=step)
        assert path.read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caplog.text.count("its rows wait") == 1
    log.log_metrics({"a": 0.0}, step=4)
    assert read_metrics(path)["a"] == [(0, 1.0), (1, 0.5), (2, 0.25), (3, 0.5 / 3), (4, 0.0)]
