"""Two processes on one machine: a test counts every video once, and kNN sees the features of both."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tubelet.demo.few_labels import few_labels

ROOT = Path(__file__).parents[2]
TRAIN = str(ROOT / "train.py")


@pytest.mark.slow
def test_499_videos_on_two_ranks_give_499_results(videos: Path, tmp_path: Path) -> None:
    rows = ["path,label", *(f"{videos.parent / f'{i % 5}.mp4'},{i % 5 % 3}" for i in range(499))]
    (tmp_path / "many.csv").write_text("\n".join(rows) + "\n")
    common = [
        "experiment=demo_finetune", "method=scratch", "data=manifest", "data.prepare=null", "data.num_workers=0",
        "data.batch_size=6", "data.stride=2", "data.repeats=1", "encoder.num_frames=2", "encoder.image_size=16",
        "encoder.dim=16", "encoder.depth=1", "encoder.num_heads=2", "encoder.position=sincos", "logger=none",
        "callbacks.progress=null", "trainer=cpu", "trainer.precision=32-true", "trainer.max_epochs=1",
        "trainer.val_every_n_epochs=1", f"data.train={videos}", f"data.val={videos}",
    ]  # fmt: skip
    subprocess.run([sys.executable, TRAIN, *common, "name=fit"], cwd=tmp_path, check=True)
    (fit,) = (tmp_path / "runs/fit").iterdir()
    tables = []
    for ranks in (1, 2):
        two = [] if ranks == 1 else ["trainer.devices=2", "trainer.strategy=ddp"]
        test = ["stage=test", f"weights={fit}", f"data.test={tmp_path / 'many.csv'}", "data.test_clips=2"]
        subprocess.run([sys.executable, TRAIN, *common, *test, *two, f"name=r{ranks}"], cwd=tmp_path, check=True)
        (directory,) = (tmp_path / f"runs/r{ranks}").iterdir()
        tables.append(pq.read_table(directory / "predictions.parquet"))
    assert len(tables[1]) == 499
    assert tables[1]["video"].equals(tables[0]["video"])
    assert tables[1]["label"].equals(tables[0]["label"])
    for one, two in zip(*(table["probabilities"].to_pylist() for table in tables), strict=True):
        assert two == pytest.approx(one, abs=1e-5)


def test_few_labels_are_drawn_evenly(videos: Path, tmp_path: Path) -> None:
    few_labels(videos, tmp_path / "few.csv", per_class=1, seed=3)
    lines = (tmp_path / "few.csv").read_text().splitlines()[1:]
    assert sorted(line.split(",")[1] for line in lines) == ["0", "1", "2"]
    with pytest.raises(ValueError, match="class 0 has 2 videos, cannot draw 3"):
        few_labels(videos, tmp_path / "few.csv", per_class=3)
