"""What the page says of a video; slow: seen in a browser without a screen."""

from __future__ import annotations

import base64
import io
import shutil
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
import torch
from PIL import Image

from tubelet.data.reader import VideoError
from tubelet.data.transforms import Preprocess
from tubelet.encoders.vit import VideoViT
from tubelet.evaluate.predict import predict
from tubelet.masking import tube
from tubelet.models.classifier import VideoClassifier
from tubelet.models.masked import MaskedModel
from tubelet.page.answer import answer, classes_over_time
from tubelet.page.server import PageServer

MASKING = partial(tube, ratio=0.5)


def encoder() -> VideoViT:
    torch.manual_seed(0)
    return VideoViT(image_size=16, num_frames=4, patch_size=8, dim=24, depth=1, num_heads=2)


def classifier(**settings: object) -> VideoClassifier:
    model = VideoClassifier(encoder(), 3, preprocess=Preprocess(stride=1), **settings)  # type: ignore[arg-type]
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


def test_the_classes_over_time_average_to_the_prediction(videos: Path) -> None:
    model = classifier(id2label={0: "zero", 1: "one", 2: "two"})
    video = videos.parent / "0.mp4"
    moments = classes_over_time(model, video, moments=3)
    assert moments[0].start == 0
    assert [moment.start for moment in moments] == sorted(moment.start or 0 for moment in moments)
    assert all((moment.end or 0) > (moment.start or 0) for moment in moments)
    means = {name: sum(dict(moment.top)[name] for moment in moments) / 3 for name in ("zero", "one", "two")}
    assert means == pytest.approx(dict(predict(model, video, clips=3, crops=1)), abs=1e-5)


def test_what_each_kind_of_model_is_asked(videos: Path, tmp_path: Path) -> None:
    video = videos.parent / "0.mp4"
    labels = answer(classifier(), None, video, tmp_path)
    assert (len(labels["moments"]), len(labels["pictures"])) == (8, 2)
    short = answer(classifier(), None, videos.parent / "5.mp4", tmp_path)["moments"]  # 5 frames: two clips of 4
    assert [(each["start"] or 0) < 0.01 for each in short] == [True, False]
    assert labels["probabilities"]
    numbers = answer(classifier(problem_type="regression"), None, video, tmp_path)
    assert not numbers["probabilities"]
    assert [name for name, _ in numbers["moments"][0]["top"]] == ["0", "1", "2"]
    masked = MaskedModel(encoder(), preprocess=Preprocess(stride=1)).eval()
    filled = answer(masked, MASKING, video, tmp_path)
    assert (filled["moments"], len(filled["pictures"])) == ([], 3)
    for picture in filled["pictures"]:
        data = base64.b64decode(picture["data"].removeprefix("data:image/gif;base64,"))
        assert Image.open(io.BytesIO(data)).n_frames == 4
    (tmp_path / "no.mp4").write_text("no video")
    with pytest.raises(VideoError):
        answer(masked, MASKING, tmp_path / "no.mp4", tmp_path)


@pytest.mark.slow
def test_in_a_browser(videos: Path, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="drives the browser: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium: apt-get install chromium")
    (tmp_path / "no.mp4").write_text("no video")
    model = classifier(id2label={0: "<b>zero</b>", 1: "one", 2: "two"})
    with PageServer(partial(answer, model, None), "127.0.0.1", 0, 10**6, "a model") as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with playwright.sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                page = browser.new_page()
                mistakes: list[str] = []
                page.on("pageerror", lambda error: mistakes.append(str(error)))
                page.on("console", lambda line: mistakes.append(line.text) if "Content Security" in line.text else None)
                page.goto(server.url)
                page.set_input_files("#file", videos.parent / "0.mp4")
                page.wait_for_selector("img", timeout=60_000)
                page.wait_for_function("[...document.images].every(image => image.naturalWidth > 0)")
                assert page.text_content("h1") == "a model"
                assert len(page.query_selector_all("tr")) == 8
                assert "<b>zero</b>" in (page.text_content("table") or "")  # shown, not followed
                assert len(page.query_selector_all("img")) == 2
                page.screenshot(path=tmp_path / "page.png", full_page=True)
                page.set_input_files("#file", tmp_path / "no.mp4")
                page.wait_for_selector("p.error", timeout=60_000)
                assert (page.text_content("#status") or "").startswith("no.mp4: ")
                (tmp_path / "large.mp4").write_bytes(bytes(10**6 + 1))
                page.set_input_files("#file", tmp_path / "large.mp4")
                page.wait_for_function("document.querySelector('#status').textContent.startsWith('large.mp4 has')")
                assert mistakes == []
                browser.close()
        finally:
            server.shutdown()
            thread.join()
