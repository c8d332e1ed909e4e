"""The command line of the commands that use a model: its device and its preprocessing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tubelet import cli
from tubelet.config.options import settings
from tubelet.encoders.vit import VideoViT
from tubelet.models.classifier import VideoClassifier
from tubelet.models.masked import MaskedModel
from tubelet.weights.save import save_pretrained

Command = Callable[..., tuple[int, str, str]]
SIZES = {"image_size": 32, "num_frames": 2, "dim": 24, "depth": 1, "num_heads": 2}


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`tubelet ARGUMENTS` -> exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["tubelet", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """A classifier and a masked model whose files say that frames are not cropped."""
    made = {
        "classifier": VideoClassifier(VideoViT(**SIZES, final_norm=False), 3),
        "masked": MaskedModel(VideoViT(**SIZES)),
    }
    for name, model in made.items():
        save_pretrained(model, tmp_path / name)
        file = tmp_path / name / "preprocessor_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"do_center_crop": False}))
    return {name: tmp_path / name for name in made}


def test_every_command_takes_own_preprocessing_and_a_device(
    command: Command, models: dict[str, Path], videos: Path, tmp_path: Path
) -> None:
    video, masked, classifier = videos.parent / "0.mp4", models["masked"], models["classifier"]
    commands = {
        "predict": (classifier, video),
        "features": (classifier, videos, "--out", tmp_path / "f.safetensors", "--num-workers", 0),
        "attention": (classifier, video, "--out", tmp_path / "a.gif"),
        "colours": (classifier, video, "--out", tmp_path / "c.gif"),
        "neighbours": (classifier, videos, video, "--out", tmp_path / "n.png", "--num-workers", 0),
        "reconstruct": (masked, video, "--out", tmp_path / "r.png", "--ratio", 0.5),
        "convert": (classifier, tmp_path / "converted"),
    }
    for name, arguments in commands.items():
        code, _, error = command(name, *arguments)
        assert code == 2, name
        assert "does not crop frames (do_center_crop: false)" in error
        assert "--preprocess short_side=null" in error
        code, _, error = command(name, *arguments, "--preprocess", "short_side=null", "--preprocess", "stride=1")
        assert (code, error) == (0, ""), name
        if name != "convert":
            code, _, error = command(name, *arguments, "--preprocess", "short_side=null", "--device", "gpu")
            assert (code, error) == (2, "error: unknown device 'gpu': cpu, cuda, cuda:1, mps, ...\n"), name
    assert "frame_stride" in (tmp_path / "converted" / "preprocessor_config.json").read_text()
    assert command("predict", classifier, video, "--preprocess", "stride")[0] == 2


def test_settings() -> None:
    assert settings(None) is None
    assert settings(["short_side=null", "size=[2, 3]"]) == {"short_side": None, "size": [2, 3]}
    with pytest.raises(ValueError, match="takes KEY=VALUE, for example short_side=null; got 'stride'"):
        settings(["stride"])


def test_the_commands_that_hand_a_model_on(command: Command, tmp_path: Path) -> None:
    """What they print, and that a mistake is found before anything is written."""
    model, card = tmp_path / "model", tmp_path / "card.md"
    save_pretrained(VideoClassifier(VideoViT(**SIZES, final_norm=False), 3), model)
    code, out, _ = command("models")
    assert (code, "google/vivit-b-16x2-kinetics400" in out) == (0, True)
    assert command("card", model, "--out", card, "--name", "me/tiny", "--license", "mit")[:2] == (0, f"{card}\n")
    assert 'model = load_model("me/tiny")' in card.read_text()
    code, out, _ = command("push", model, "me/tiny@v1", "--dry-run", "--card", card)
    assert (code, out.endswith("/me/tiny (private)\n"), "model.safetensors" in out) == (0, True, True)
    layers, repository = "--layers takes whole numbers and commas, for example 6,12", "owner/name, or owner/name@tag"
    mistakes = {
        ("push", model, "me/tiny", "--card", tmp_path / "no.md"): f"--card {tmp_path / 'no.md'}: there is no such file",
        ("push", model, "tiny", "--dry-run"): f"'tiny' is no name of a repository: {repository}",
        ("export", model, "x.onnx", "--dynamic", "time"): "--dynamic must be batch, got 'time'",
        ("card", model, "--out", card, "--name", "a b"): f"'a b' is no name of a repository: {repository}",
        ("convert", model, card): f"{card}: File exists",
        ("export", model, "x.onnx", "--layers", "a"): f"{layers}; got 'a'",
        ("export", model, "x.onnx", "--int8", "no.csv"): "--int8 no.csv: there is no such manifest",
        ("export", model, "x.h5"): "cannot write 'x.h5': the ending must be .onnx or .pt2",
        ("convert", model, "x", "--format", "onnx"): "unknown format 'onnx', expected auto, transformers or tubelet",
    }
    for arguments, message in mistakes.items():
        assert command(*arguments)[::2] == (2, f"error: {message}\n")
