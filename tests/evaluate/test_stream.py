"""Windows as they come: of a file, of a source on the loopback that does not wait, of standard input; and timelines."""

from __future__ import annotations

import csv
import io
import itertools
import json
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from small_videos import VIDEO_FRAMES
from tubelet import load_clip, stream
from tubelet.cli import app
from tubelet.data.live import source_of
from tubelet.data.reader import Shrink, VideoError
from tubelet.data.transforms import Preprocess
from tubelet.encoders.vit import VideoViT
from tubelet.evaluate.timeline import Segment, segments_above, timeline
from tubelet.evaluate.timeline_files import draw_strip
from tubelet.models.classifier import VideoClassifier
from tubelet.weights.save import save_pretrained

SIZES = {"image_size": 32, "num_frames": 4, "patch_size": 16, "dim": 24, "depth": 1, "num_heads": 2}


@pytest.fixture
def model() -> VideoClassifier:
    torch.manual_seed(0)
    names = {0: "a", 1: "b", 2: "c"}
    model = VideoClassifier(VideoViT(**SIZES, final_norm=False), 3, preprocess=Preprocess(stride=2), id2label=names)
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


@pytest.fixture
def transport(videos: Path, tmp_path: Path) -> bytes:
    """0.mp4 as a camera sends it: a transport stream, which can be read while it grows."""
    with av.open(str(videos.parent / "0.mp4")) as old, av.open(str(tmp_path / "0.ts"), "w", format="mpegts") as new:
        source = old.streams.video[0]
        target = new.add_stream_from_template(source)
        for packet in old.demux(source):
            if packet.size:
                packet.stream = target
                new.mux(packet)
    return (tmp_path / "0.ts").read_bytes()


@pytest.fixture
def address(transport: bytes) -> Iterator[str]:
    """An address on the loopback that sends the video to whoever connects, as fast as it is taken."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            while True:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(transport)
        except OSError:  # the server is closed
            pass

    threading.Thread(target=serve, daemon=True).start()
    yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
    server.close()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier says nothing of the first window before all 20 sampled frames of 0.mp4 have been read."""
    read, shrinker, scores = threading.Event(), Preprocess.shrinker, VideoClassifier.scores

    def counting(self: Preprocess, *size: object) -> Shrink:
        shrink, frames = shrinker(self, *size), itertools.count(1)

        def counted(pixels: torch.Tensor) -> torch.Tensor:
            if next(frames) > 20:  # the end, whose picture is the padding
                read.set()
            return shrink(pixels)

        return counted

    def waiting(self: VideoClassifier, logits: torch.Tensor) -> torch.Tensor:
        read.wait(10)
        return scores(self, logits)

    monkeypatch.setattr(Preprocess, "shrinker", counting)
    monkeypatch.setattr(VideoClassifier, "scores", waiting)


def test_windows_of_a_file(model: VideoClassifier, videos: Path) -> None:
    video = videos.parent / "0.mp4"
    windows = list(stream(model, video, stride=2))
    assert [window.start for window in windows] == pytest.approx([4 * i / 24 for i in range(9)])
    for window in windows:
        with torch.no_grad():
            expected = model(load_clip(video, model, start=window.start)).softmax(1)[0]
        assert torch.allclose(window.values, expected, atol=1e-5)
        assert (window.picture.shape, window.dropped) == ((32, 32, 3), 0)
    model.encoder.preprocess = model.preprocess
    (features, *_) = stream(model.encoder, video, fps=12)
    with torch.no_grad():
        assert torch.allclose(features.values, model.encoder(load_clip(video, model, start=0)).mean(1)[0], atol=1e-5)


@pytest.mark.usefixtures("slow")
def test_a_source_on_the_network_does_not_wait(model: VideoClassifier, address: str) -> None:
    windows = list(stream(model, address, stride=2, live=True))
    assert windows[-1].dropped + len(windows) == 9
    assert windows[-1].dropped >= 4  # eight were cut while one was computed and two were kept
    starts = [round(window.start * 6) for window in windows]
    assert starts == sorted(starts)
    assert starts[-1] == 8  # what is dropped is old, the newest is kept


def test_standard_input(model: VideoClassifier, transport: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Pipe(transport)))
    windows = list(stream(model, "-", fps=12, live=True))
    assert windows[-1].end == pytest.approx(VIDEO_FRAMES[0] / 24, abs=0.01)


def test_names_of_sources(model: VideoClassifier) -> None:
    assert source_of("webcam", "linux")[:2] == ("/dev/video0", "v4l2")
    assert source_of("webcam:1", "darwin")[:2] == ("1", "avfoundation")
    assert source_of("webcam:Front", "win32")[:2] == ("video=Front", "dshow")
    assert source_of("rtsp://host/1", "linux") == ("rtsp://host/1", None, {"rtsp_transport": "tcp"})
    with pytest.raises(ValueError, match="no cameras are known on beos"):
        source_of("webcam", "beos")
    with pytest.raises(VideoError, match=r"tcp://127.0.0.1:1: Connection refused"):
        list(stream(model, "tcp://127.0.0.1:1", live=True))
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        stream(model, "x.mp4", stride=0)


def test_segments() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
    apart = [(0.0, 1.0, 4), (1.0, 2.0, 4), (2.0, 3.0, 4), (3.0, 3.5, 2)]
    assert segments_above(scores, apart, ["a", "b"], 0.5) == [
        Segment("a", 0.0, 2.0, pytest.approx(0.8)),
        Segment("b", 2.0, 3.0, pytest.approx(0.8)),
        Segment("a", 3.0, 3.5, pytest.approx(0.6)),
    ]
    overlapping = [(0.5 * i, 0.5 * i + 2, 4) for i in range(4)]
    assert segments_above(scores, overlapping, ["a", "b"], 0.5)[0] == Segment("a", 0.0, 3.5, pytest.approx(2.2 / 3))


def test_a_timeline_is_smoothed(model: VideoClassifier, videos: Path, tmp_path: Path) -> None:
    video = videos.parent / "0.mp4"
    rough, smooth = (timeline(model, video, width, stride=2) for width in (1, 3))
    assert torch.allclose(smooth.scores[4], rough.scores[3:6].mean(0), atol=1e-6)
    assert torch.allclose(smooth.scores[0], rough.scores[:2].mean(0), atol=1e-6)
    for width, threshold, message in [(2, None, "smooth must be an odd"), (1, 1.5, r"threshold must lie in \(0, 1\)")]:
        with pytest.raises(ValueError, match=message):
            timeline(model, video, width, threshold)
    with pytest.raises(ValueError, match="needs a classifier, got a VideoViT"):
        timeline(model.encoder, video)
    Image.new("RGB", (32, 32)).save(tmp_path / "1.png")
    with pytest.raises(VideoError, match="has no frame rate"):
        timeline(model, tmp_path)


@pytest.mark.usefixtures("slow")
def test_names_in_the_strip_are_no_formulas_and_none_is_missing(model: VideoClassifier, videos: Path) -> None:
    found = replace(timeline(model, videos.parent / "0.mp4"), video="$_^$.mp4", labels=["_background", "$x^$", "5 $"])
    assert draw_strip(found) != draw_strip(replace(found, labels=["_other", "$x^$", "5 $"]))


def test_dropped_windows_are_named(model: VideoClassifier, address: str, tmp_path: Path) -> None:
    save_pretrained(model, tmp_path / "model")
    arguments = ["predict", str(tmp_path / "model"), address, "--live", "--stride", "2", "--topk", "1", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "late windows dropped: the model is slower than the source" in result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[-1]["dropped"] + len(lines) == 9
    assert len(lines[-1]["top"]) == 1


def test_command_line(model: VideoClassifier, videos: Path, tmp_path: Path) -> None:
    save_pretrained(model, tmp_path / "model")
    video = str(videos.parent / "0.mp4")

    def run(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["predict", str(tmp_path / "model"), *map(str, arguments)])
        wrong = isinstance(result.exception, ValueError)
        return (2, str(result.exception)) if wrong else (result.exit_code, result.output)

    files = [tmp_path / f"out/t.{kind}" for kind in ("json", "csv", "png")]
    outputs = [argument for file in files for argument in ("--out", file)]
    code, output = run(video, "--timeline", "--stride", 2, "--threshold", 0.34, "--smooth", 3, "--json", *outputs)
    assert code == 0, output
    found = json.loads(output)
    assert json.loads(files[0].read_text()) == found
    assert (len(found["windows"]), found["segments"][0].keys()) == (9, {"label", "start", "end", "score"})
    with files[1].open() as file:
        rows = list(csv.DictReader(file))
    assert {label: float(rows[0][label]) for label in "abc"} == pytest.approx(
        {each["label"]: each["score"] for each in found["windows"][0]["top"]}, abs=1e-5
    )
    assert Image.open(files[2]).size[0] == 1200
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    code, output = run(tmp_path / "broken.mp4", video, "--timeline")
    assert (code, "broken.mp4: Invalid data" in output, output.count(" s  ")) == (1, True, 5)
    for arguments, message in [
        ((video, "--timeline", "--live"), "--timeline and --live cannot both be set"),
        ((video, video, "--live"), "--live takes one source, got 2"),
        ((video, "--stride", 2), "--stride has a meaning only with --timeline or --live"),
        ((video, "--live", "--out", "x.csv"), "--out has a meaning only with --timeline"),
        ((video, "--timeline", "--out", "x.gif"), "the ending must be .json, .csv or .png"),
        ((video, video, "--timeline", "--out", "x.png"), "'x.png' can show one video, got 2"),
        ((video, "--timeline", "--frame-stride", 0), "frame stride must be at least 1, got 0"),
        ((video, "--timeline", "--fps", "nan"), "fps must be positive, got nan"),
        ((video, "--smooth", 3), "--smooth has a meaning only with --timeline"),
        ((video, "--live", "--smooth", 3), "--smooth has a meaning only with --timeline"),
        ((video, "--timeline", "--topk", 0), "topk must be at least 1, got 0"),
        ((video, "--live", "--topk", -1), "topk must be at least 1, got -1"),
        ((video, "--labels", video), "is no text file of class names"),
    ]:
        code, output = run(*arguments)
        assert (code, message in output) == (2, True), output
