import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tubelet.report.curves import labels, swept
from tubelet.report.page import report
from tubelet.report.table import Run, find_runs


def make_run(folder: Path, ratio: float, seed: int = 0, encoder: str = "vit") -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"seed: {seed}\nmasking: {{ratio: {ratio}}}\nencoder: {encoder}\n")
    rows = "".join(f"{step},{1 / (step + 1)},{ratio / (step + 1)}\n" for step in range(20))
    (folder / "metrics.csv").write_text("step,train/loss,val/loss\n" + rows)
    (folder / "summary.json").write_text(json.dumps({"steps": 19, "val/loss": ratio / 20}))
    (folder / "reconstructions").mkdir()
    (folder / "checkpoints").mkdir()
    for step in (10, 20):
        Image.new("RGB", (4, 4), (step, 0, 0)).save(folder / "reconstructions" / f"step_{step:07}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, ratio in enumerate((0.5, 0.75, 0.9)):
        make_run(tmp_path / "runs" / f"ratio <{i}>", ratio)
    return tmp_path / "runs"


def images(page: Path) -> list[bytes]:
    return [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,(.+?)"', page.read_text())]


def charts(page: Path) -> list[Any]:
    """The blocks of charts."""
    return [
        json.loads(block) for block in re.findall(r'data-charts><script type="[\w/]+">(.+?)</script>', page.read_text())
    ]


def test_a_page_that_needs_no_other_file(folder: Path) -> None:
    page = report(folder)
    assert page == folder / "report.html"
    text = page.read_text()
    assert "runs: 3 runs" in text
    assert "ratio &lt;0&gt;" in text
    assert "<td>0.75</td>" in text
    assert "http" not in text
    newest = [(run / "reconstructions" / "step_0000020.png").read_bytes() for run in sorted(folder.glob("ratio*"))]
    assert images(page) == newest
    result, curves = charts(page)
    assert [chart["title"] for chart in result] == ["val/loss"]
    assert [chart["title"] for chart in curves] == ["train/loss", "val/loss"]
    assert curves[0]["series"][1]["name"] == "masking.ratio=0.75"
    assert curves[0]["series"][1]["points"][:2] == [[0, 1], [1, 0.5]]
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["report.html"]


def test_a_picture_of_the_curves(folder: Path) -> None:
    """A panel for each metric, and below where each ratio ended."""
    path = report(folder, folder / "x.png")
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    assert Image.open(path).size == (1000, 800)
    assert len(np.unique(pixels, axis=0)) > 50


def test_only_runs_of_one_name_share_panels(folder: Path) -> None:
    for i, name in enumerate(("a", "b")):
        run = folder / str(i)
        make_run(run, 0.5, encoder=f"vit\nname: {name}")
    assert re.findall("<h2>(.*?)</h2>", report(folder).read_text()) == ["a", "b", ""]
    assert len(images(folder / "report.html")) == 5  # one of each run
    assert len(charts(folder / "report.html")) == 1 + 3  # one of the ratios, one of each name
    assert Image.open(report(folder, folder / "x.png")).size == (1000, 1600)


def test_what_names_a_run(folder: Path) -> None:
    runs = find_runs(folder)
    assert swept(runs) == "masking.ratio"
    assert labels(runs)[1] == "masking.ratio=0.75"
    make_run(folder / "z", 0.5, seed=1)
    assert swept(find_runs(folder)) == "masking.ratio"
    make_run(folder / "z2", 0.5, encoder="other")
    runs = find_runs(folder)
    assert swept(runs) is None
    assert labels(runs)[-1] == "z2"
    make_run(folder / "7", 0.5, encoder="third")
    assert labels(find_runs(folder))[0] == "7: third, 0.5, 0"
    assert report(folder).exists()


def test_a_run_that_has_logged_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "checkpoints").mkdir()
    assert images(report(tmp_path)) == []
    with pytest.raises(ValueError, match="no run has logged any of train/loss"):
        report(tmp_path, tmp_path / "x.png")
    assert find_runs(tmp_path) == [Run(tmp_path.name, tmp_path, {"seed": 0}, {}, {}, False)]


@pytest.mark.parametrize(
    ("out", "message"),
    [("x.pdf", r"x\.pdf: a report is \.html, \.png, \.csv, \.md or \.tex"), ("no/x.csv", "there is no directory")],
)
def test_what_cannot_be_written(folder: Path, out: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        report(folder, folder / out)


def test_no_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run directory"):
        report(tmp_path / "nowhere")


def test_runs_of_several_weights_keep_their_links(tmp_path: Path) -> None:
    for i in range(2):
        make_run(tmp_path / str(i), 0.5, encoder=f"vit\nweights: <b>{i}</b>")
        (tmp_path / str(i) / "checkpoints" / "last.ckpt").touch()
    text = report(tmp_path).read_text()
    assert text.count("<td>&lt;b&gt;1&lt;/b&gt;</td>") == 2  # in the table of means, too
    assert '<td><a href="1/checkpoints/last.ckpt">last</a></td>' in text
