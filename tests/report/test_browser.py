"""The report as a reader sees it, in a headless Chromium."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import Browser, find
from tubelet.report.page import report
from tubelet.report.watch import Watch

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        find() is None and not os.environ.get("TUBELET_CI"), reason="needs Chromium: apt-get install chromium"
    ),
]
SHADES = (60, 120, 180, 240)


def make_run(path: Path, masking: str, ratio: float, seed: int) -> None:
    """A run of 20 steps whose film has four frames of one grey each."""
    (path / "checkpoints").mkdir(parents=True)
    (path / "reconstructions").mkdir()
    (path / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    (path / "config.yaml").write_text(
        f"seed: {seed}\nmasking: {{ratio: {ratio}, _target_: tubelet.masking.{masking}}}\n"
    )
    rows = "".join(f"{step},{ratio / (step + 1)},{1 / (step + 2)}\n" for step in range(20))
    (path / "metrics.csv").write_text("step,train/loss,val/loss\n" + rows)
    score = ratio / 2 + seed / 20 + 0.1 * (masking == "tube")
    summary = {"steps": 19, "seconds": 60.5, "device_hours": 0.5, "clips_per_s": 100.0, "val/top1": score}
    (path / "summary.json").write_text(json.dumps(summary))
    first, *rest = [Image.new("L", (200, 100), shade) for shade in SHADES]
    first.save(path / "reconstructions" / "step_0000019.gif", save_all=True, append_images=rest, duration=100)
    Image.new("L", (200, 100)).save(path / "reconstructions" / "step_0000019.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    points = [(kind, ratio, seed) for kind in ("tube", "random") for ratio in (0.5, 0.75, 0.9) for seed in (0, 1)]
    for i, (kind, ratio, seed) in enumerate(points):
        make_run(folder / f"{i}", kind, ratio, seed)
    (folder / "5" / "summary.json").unlink()
    (folder / "5" / "error.txt").write_text("ValueError: no such file\n\nTraceback\n")
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("chromium") / "profile")
    yield opened
    opened.close()


def middle(browser: Browser, selector: str) -> tuple[float, float]:
    box = browser.value(
        f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
        f" return [b.x + b.width / 2, b.y + b.height / 2] }})(document.querySelector({json.dumps(selector)}))"
    )
    return box[0], box[1]


def is_blank(picture: np.ndarray) -> bool:
    return bool(picture.std() < 5)


def test_charts_tables_and_films_answer(browser: Browser, folder: Path, tmp_path: Path) -> None:
    browser.problems.clear()
    browser.window(1400, 1000)
    browser.open(report(folder).as_uri())
    light = browser.screenshot(tmp_path / "light.png")
    browser.window(1400, 1000, dark=True)
    dark = browser.screenshot(tmp_path / "dark.png")
    assert not is_blank(light)
    assert not is_blank(dark)
    assert light.mean() > 200
    assert dark.mean() < 80
    assert browser.value("document.querySelector('main > p').textContent") == "11 finished, 1 failed; 5.5 device hours"

    assert browser.value("document.getElementById('tip').hidden")
    browser.pointer(*middle(browser, "svg.chart"))
    assert not browser.value("document.getElementById('tip').hidden")
    tip = browser.value("document.getElementById('tip').innerText")
    assert tip.splitlines()[0] == "masking.ratio 0.75"
    assert [line.split()[-1] for line in tip.splitlines()[1:]] == ["tube", "random"]  # the higher one first

    lines = "document.querySelectorAll('svg.chart')[0].querySelectorAll('polyline').length"
    assert browser.value(lines) == 2
    browser.pointer(*middle(browser, ".legend button"), click=True)
    assert browser.value(lines) == 1

    first = "document.querySelectorAll('table')[2].rows[1].cells[0].textContent"
    assert browser.value("document.querySelectorAll('table')[2].rows[0].cells[0].textContent") == "run"
    before = browser.value(first)
    for _ in range(2):
        browser.pointer(*middle(browser, "table:nth-of-type(3) th"), click=True)
    assert (before, browser.value(first)) == ("0", "11")

    browser.value("(s => { s.value = 2; s.oninput() })(document.querySelector('.films input'))")
    browser.until(lambda: browser.value("[...document.querySelectorAll('.films img')].every(i => i.complete)"))
    x, y = middle(browser, ".films img")
    shade = browser.screenshot(tmp_path / "film.png")[int(y), int(x)]
    assert np.abs(shade.astype(int) - SHADES[2]).max() < 6
    assert browser.value("document.querySelector('.films output').textContent") == "frame 3 of 4"
    assert browser.problems == []


def test_it_prints(browser: Browser, folder: Path) -> None:
    browser.open(report(folder).as_uri())
    assert len(browser.call("Page.printToPDF")["data"]) > 20_000
    assert browser.problems == []


def test_it_follows_a_running_job(browser: Browser, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser.problems.clear()
    monkeypatch.setattr("tubelet.report.watch.SECONDS", 0.1)
    with Watch(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.open(server.address)
        runs = "document.querySelectorAll('table')[2].rows.length - 1"
        assert browser.value(runs) == 12
        browser.value("(s => { s.value = 3; s.oninput() })(document.querySelector('.films input'))")
        make_run(folder / "12", "tube", 0.6, 0)
        browser.until(lambda: browser.value(runs) == 13)
        assert browser.value("document.querySelector('.films input').value") == "3"  # what the reader chose stays
        assert browser.problems == []
        server.shutdown()
