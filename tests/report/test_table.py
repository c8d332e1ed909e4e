import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tubelet.report.sweep import CollectSweep
from tubelet.report.table import find_runs, varied, write_csv


def make_run(folder: Path, ratio: float, loss: float | None) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"seed: 0\nmasking: {{ratio: {ratio}}}\nmethod: {{model: {{r: {ratio}}}}}\n")
    (folder / "checkpoints").mkdir()
    (folder / "wandb" / "files").mkdir(parents=True)
    (folder / "wandb" / "files" / "config.yaml").write_text("not: a run\n")
    if loss is not None:
        (folder / "summary.json").write_text(json.dumps({"val/loss": loss}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_run(tmp_path / "0", 0.5, 0.1)
    make_run(tmp_path / "1", 0.75, 0.2)
    make_run(tmp_path / "10", 0.9, None)
    make_run(tmp_path / "2", 0.6, None)
    (tmp_path / "2" / "metrics.csv").write_text("step,val/loss,lr\n5,,0.1\n7,0.4,\n9,0.3")
    return tmp_path


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_row_a_run_and_a_column_for_what_varied(folder: Path) -> None:
    write_csv(find_runs(folder), folder / "x.csv")
    rows = table(folder / "x.csv")
    assert [row["run"] for row in rows] == ["0", "1", "2", "10"]
    assert [row["state"] for row in rows] == ["finished", "finished", "unfinished", "unfinished"]
    assert [row["masking.ratio"] for row in rows] == ["0.5", "0.75", "0.6", "0.9"]
    assert [row["val/loss"] for row in rows] == ["0.1", "0.2", "0.4", ""]  # the last whole row that has one
    assert [row["steps"] for row in rows] == ["", "", "7", ""]
    assert "seed" not in rows[0]
    assert "model.r" not in rows[0]


def test_the_device_hours_of_a_point_are_those_of_its_probes_too(tmp_path: Path) -> None:
    make_run(tmp_path / "0", 0.5, 0.1)
    (tmp_path / "0" / "summary.json").write_text('{"device_hours": 1.0}')
    (tmp_path / "0" / "probes" / "knn").mkdir(parents=True)
    (tmp_path / "0" / "probes" / "knn" / "summary.json").write_text('{"device_hours": 0.25, "seconds": 900}')
    (run,) = find_runs(tmp_path)
    assert run.summary == {"device_hours": 1.25, "knn/seconds": 900}


def test_runs_at_any_depth(folder: Path) -> None:
    make_run(folder / "deep" / "er" / "0.9", 0.5, 1.0)
    make_run(folder / "deep" / "er" / "0.75", 0.5, 1.0)
    (folder / "conf").mkdir()
    (folder / "conf" / "config.yaml").write_text("not: a run\n")
    runs = find_runs(folder)
    assert [run.name for run in runs] == ["0", "1", "2", "10", "deep/er/0.75", "deep/er/0.9"]
    assert varied(runs) == ["masking.ratio"]
    assert [run.name for run in find_runs(folder / "2")] == ["2"]


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path}: no run directory"):
        find_runs(tmp_path)


def test_a_sweep_leaves_its_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from omegaconf import OmegaConf

    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
    CollectSweep().on_multirun_end(config)
    assert len(table(folder / "sweep.csv")) == 4
    assert str(folder / "sweep.csv") in capsys.readouterr().out


def test_a_sweep_without_runs(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    CollectSweep().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_job_that_fails_and_says_why(
    tiny_arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    (tmp_path / "weights.pth").write_bytes(b"")
    command = [sys.executable, str(Path(__file__).parents[2] / "train.py"), "-m", *tiny_arguments()]
    jobs = [*command, "weights=null,weights.pth,null", "seed=0", "trainer.max_steps=1"]
    done = subprocess.run(jobs, cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.returncode != 0
    (table,) = tmp_path.glob("runs/try/sweep_*/sweep.csv")
    states = [row["state"] for row in csv.DictReader(table.open())]
    assert [state.partition(":")[0] for state in states] == ["finished", "failed", "finished"]
    assert "weights.pth is empty" in states[1]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.yaml", "a: [1\n"),
        ("config.yaml", "- a\n"),
        ("metrics.csv", "step,val/loss\n1,x\n"),
        ("metrics.csv", "epoch,val/loss\n1,0.5\n"),
        ("metrics.csv", "step,val/loss\n1,0.5,0.6\n"),
        ("metrics.csv", "\x00\udcff\n"),
        ("summary.json", ""),
        ("summary.json", "[1]"),
        ("probes/knn/summary.json", "{"),
    ],
)
def test_a_run_with_a_damaged_file_hides_no_other(folder: Path, file: str, text: str) -> None:
    damaged = folder / "0" / file
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_bytes(text.encode(errors="surrogateescape"))
    write_csv(find_runs(folder), folder / "x.csv")
    first, *others = table(folder / "x.csv")
    assert first["state"].startswith(f"failed: {damaged} is ")
    assert [row["masking.ratio"] for row in others] == ["0.75", "0.6", "0.9"]
    assert "seed" not in first
