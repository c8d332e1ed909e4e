import csv
import json
from pathlib import Path

from tubelet.sweep import collect


def make_run(folder: Path, ratio: float, loss: float | None) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"seed: 0\nmasking: {{ratio: {ratio}}}\nmethod: {{model: {{r: {ratio}}}}}\n")
    if loss is not None:
        (folder / "summary.json").write_text(json.dumps({"val/loss": loss}))


def test_a_row_a_run_and_a_column_for_what_varied(tmp_path: Path) -> None:
    make_run(tmp_path / "0", 0.5, 0.1)
    make_run(tmp_path / "1", 0.75, 0.2)
    make_run(tmp_path / "10", 0.9, None)
    path = collect(tmp_path)
    assert path is not None
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["0", "1", "10"]
    assert [row["masking.ratio"] for row in rows] == ["0.5", "0.75", "0.9"]
    assert [row["val/loss"] for row in rows] == ["0.1", "0.2", ""]
    assert "seed" not in rows[0]
    assert "method.model.r" not in rows[0]


def test_nothing_to_collect(tmp_path: Path) -> None:
    assert collect(tmp_path) is None
