"""A point of a study: a run and its probes in one job, which continues where it was interrupted."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

import tubelet
from tubelet import study
from tubelet.config.resolvers import point
from tubelet.report.table import find_runs, write_csv

Tiny = Callable[..., DictConfig]


@pytest.fixture
def config(tiny: Tiny, tiny_arguments: Callable[..., list[str]], videos: Path) -> DictConfig:
    """One step of pretraining, kNN, and a fine-tuning that needs weights which do not exist."""
    cfg = tiny("trainer.max_steps=1", "resume=auto", "sweep.probes=[knn,finetune]")
    cfg.sweep.overrides = {
        "knn": [*tiny_arguments(), "stage=validate", "callbacks.knn.k=1"],
        "finetune": [*tiny_arguments("data.num_classes=3", "trainer.max_steps=1", method="finetune"), "weights=no.pth"],
    }
    return cfg


@pytest.mark.slow
def test_a_point_is_one_row_with_the_results_of_its_probes(config: DictConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"probes of runs/try/.* failed: finetune: ValueError: no\.pth"):
        study.point(config)
    (run,) = find_runs(tmp_path)
    assert run.state.startswith("failed: finetune: ")
    assert "knn/top1" in run.summary
    knn = run.path / "probes" / "knn" / "summary.json"
    written = knn.stat().st_mtime_ns

    config.sweep.overrides.finetune = config.sweep.overrides.finetune[:-1]
    metrics = study.point(config)  # the same command, repaired: only what is missing is done
    assert knn.stat().st_mtime_ns == written
    assert {"train/loss", "knn/top1", "finetune/val_top1"} <= metrics.keys()
    write_csv(find_runs(tmp_path), tmp_path / "sweep.csv")
    (row,) = csv.DictReader((tmp_path / "sweep.csv").open())
    assert row["state"] == "finished"
    assert float(row["finetune/val_top1"]) == pytest.approx(metrics["finetune/val_top1"])


def test_a_mistake_in_a_probe_is_found_before_the_point_is_trained(config: DictConfig, tmp_path: Path) -> None:
    config.sweep.overrides.knn = ["experiment=demo_knn", "callbacks.knn.kk=1"]
    with pytest.raises(ValueError, match=r"sweep\.overrides\.knn: .*kk"):
        study.point(config)
    config.sweep.probes = ["linear"]
    with pytest.raises(ValueError, match=r"'linear' has no command \(there are: knn, finetune\)"):
        study.point(config)
    assert not (tmp_path / "runs").exists()


def test_the_name_of_a_point_has_what_makes_it_another_one() -> None:
    overrides = ["experiment=x", "seed=0", "masking=tube", "+data.train=a/b.csv", "sweep.probes=[knn]", "logger=none"]
    assert point(overrides) == "data.train-a-b.csv_masking-tube_seed-0"
    assert point(["experiment=x"]) == "point"


def test_the_name_of_a_point_fits_a_file_system() -> None:
    def name(override: str) -> str:
        return str(OmegaConf.create({"task": [override], "name": "${point:${task}}"}).name)

    assert name("data.train=" + "a" * 230) == "data.train-" + "a" * 230
    long = [name("data.train=" + "é" * 230 + str(i)) for i in range(2)]
    assert long[0] != long[1]
    assert max(len(each.encode()) for each in long) <= 255


def test_training_from_python_knows_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"sweep\.probes: 'x' has no command"):
        tubelet.train("experiment=demo_pretrain", "sweep.probes=[x]")
    assert list(tmp_path.iterdir()) == []
