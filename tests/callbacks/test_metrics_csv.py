from pathlib import Path

from tubelet.callbacks.metrics_csv import MetricsCSV, read_metrics


def test_columns_grow_and_steps_are_forgotten(tmp_path: Path) -> None:
    log = MetricsCSV(tmp_path / "metrics.csv")
    log.log_metrics({"train/loss": 1.0}, step=0)
    log.log_metrics({"train/loss": 0.5, "lr": 0.1}, step=10)
    log.log_metrics({"val/loss": 0.7}, step=20)
    curves = read_metrics(tmp_path / "metrics.csv")
    assert curves["train/loss"] == [(0, 1.0), (10, 0.5)]
    assert curves["lr"] == [(10, 0.1)]
    assert curves["val/loss"] == [(20, 0.7)]

    resumed = MetricsCSV(tmp_path / "metrics.csv")
    resumed.forget_after(20)
    resumed.log_metrics({"val/loss": 0.6}, step=20)
    assert read_metrics(tmp_path / "metrics.csv")["val/loss"] == [(20, 0.6)]


def test_half_a_row_of_a_killed_run_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsCSV(path)
    log.log_metrics({"a": 1.0, "b": 2.0}, step=0)
    with path.open("a") as file:
        file.write("1,3")
    resumed = MetricsCSV(path)
    resumed.forget_after(5)
    assert read_metrics(path)["a"] == [(0, 1.0)]
