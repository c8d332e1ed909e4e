"""What the page says of a video; cluster: seen in a browser without a screen."""

from __future__ import annotations

import base64
import io
import os
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
import torch
from PIL import Image

from browser import Browser, find
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


@pytest.mark.cluster
@pytest.mark.skipif(
    find() is None and not os.environ.get("TUBELET_CI"), reason="needs Chromium: apt-get install chromium"
)
def test_in_a_browser(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_text("no video")
    (tmp_path / "large.mp4").write_bytes(bytes(10**6 + 1))
    model = classifier(id2label={0: "<b>zero</b>", 1: "one", 2: "two"})
    browser = Browser(tmp_path / "profile")

    def drop(file: Path, wanted: str) -> None:
        """Choose a file on the page, and wait until its status is as wanted."""
        chosen = browser.call("Runtime.evaluate", expression="document.getElementById('file')")["result"]["objectId"]
        browser.call("DOM.setFileInputFiles", files=[str(file)], objectId=chosen)
        browser.until(lambda: browser.value("document.getElementById('status').textContent").startswith(wanted))

    with PageServer(partial(answer, model, None), "127.0.0.1", 0, 10**6, "a model") as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            browser.open(server.url)
            drop(videos.parent / "0.mp4", "0.mp4")
            browser.until(lambda: browser.value("[...document.images].filter(i => i.naturalWidth > 0).length") == 2)
            assert browser.value("document.querySelector('h1').textContent") == "a model"
            assert browser.value("document.querySelectorAll('tr').length") == 8
            assert "<b>zero</b>" in browser.value("document.querySelector('table').textContent")  # shown, not followed
            assert browser.problems == []
            drop(tmp_path / "no.mp4", "no.mp4: ")
            assert browser.value("document.getElementById('status').className") == "error"
            assert browser.value("document.images.length") == 0
            drop(tmp_path / "large.mp4", "large.mp4 has 1000001 bytes")
        finally:
            browser.close()
            server.shutdown()
            thread.join()
