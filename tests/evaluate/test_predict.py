import json

import pytest
import torch
from typer.testing import CliRunner

from tubelet.cli import app
from tubelet.data.load_clip import load_clip
from tubelet.data.transforms import Preprocess
from tubelet.encoders.vit import VideoViT
from tubelet.evaluate.predict import name_classes, predict
from tubelet.models.classifier import VideoClassifier
from tubelet.weights.load import load_model
from tubelet.weights.save import save_pretrained

SMALL = {"image_size": 32, "num_frames": 4, "patch_size": 16, "dim": 24, "depth": 1, "num_heads": 2}


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = VideoClassifier(
        VideoViT(**SMALL, final_norm=False), 3, preprocess=Preprocess(stride=2), id2label={0: "a", 1: "b", 2: "c"}
    )
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


def test_one_view_is_the_clip_that_load_clip_gives(model, videos):
    video = videos.parent / "0.mp4"
    with torch.no_grad():
        expected = model(load_clip(video, model)).softmax(1)[0]
    top = predict(model, video, topk=3, clips=1, crops=1)
    assert dict(top) == pytest.approx({"abc"[i]: p.item() for i, p in enumerate(expected)}, abs=1e-6)
    assert [p for _, p in top] == sorted((p for _, p in top), reverse=True)


def test_probabilities_of_all_views_are_averaged(model, videos):
    top = predict(model, videos.parent / "0.mp4", topk=9)
    assert len(top) == 3
    assert sum(p for _, p in top) == pytest.approx(1)
    assert len(predict(model, videos.parent / "0.mp4", topk=2)) == 2


def test_classes_without_names_are_numbers(model, videos):
    model.id2label = None
    assert {label for label, _ in predict(model, videos.parent / "0.mp4")} == {"0", "1", "2"}


def test_models_without_classes_are_refused(videos):
    with pytest.raises(ValueError, match="needs a classifier, got a VideoViT"):
        predict(VideoViT(**SMALL), videos.parent / "0.mp4")


def test_several_labels_have_probabilities_of_their_own_and_numbers_keep_their_order(model, videos):
    video = videos.parent / "0.mp4"
    with torch.no_grad():
        logits = model(load_clip(video, model))[0]
    labels = VideoClassifier(model.encoder, 3, "multi_label_classification", preprocess=Preprocess(stride=2))
    numbers = VideoClassifier(
        model.encoder, 3, "regression", value_mean=[1, 2, 3], value_std=[1, 2, 0.5], preprocess=Preprocess(stride=2)
    )
    for other in (labels, numbers):
        other.head, other.fc_norm = model.head, model.fc_norm
    top = dict(predict(labels, video, clips=1, crops=1))
    assert top == pytest.approx({str(i): p for i, p in enumerate(logits.sigmoid().tolist())}, abs=1e-6)
    told = predict(numbers, video, topk=1, clips=1, crops=1)
    expected = (logits * torch.tensor([1, 2, 0.5]) + torch.tensor([1.0, 2, 3])).tolist()
    assert [name for name, _ in told] == ["0", "1", "2"]
    assert [value for _, value in told] == pytest.approx(expected, abs=1e-5)


def test_names_from_a_file(model, tmp_path):
    (tmp_path / "labels.txt").write_text("x\ny\nz\n")
    name_classes(model, tmp_path / "labels.txt")
    assert model.id2label == {0: "x", 1: "y", 2: "z"}
    (tmp_path / "labels.txt").write_text("x\ny\n")
    with pytest.raises(ValueError, match=r"labels.txt names 2 classes, the model has 3"):
        name_classes(model, tmp_path / "labels.txt")


def test_command_line(model, videos, tmp_path):
    save_pretrained(model, tmp_path / "model")
    video = str(videos.parent / "0.mp4")
    result = CliRunner().invoke(app, ["predict", str(tmp_path / "model"), video, "--json", "--topk", "2"])
    top = json.loads(result.stdout)["top"]
    expected = predict(load_model(tmp_path / "model"), video, topk=2)
    assert [entry["label"] for entry in top] == [label for label, _ in expected]
    assert [entry["probability"] for entry in top] == pytest.approx([p for _, p in expected])
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    command = ["predict", str(tmp_path / "model"), str(tmp_path / "broken.mp4"), video, "--json"]
    broken = CliRunner().invoke(app, command)
    assert json.loads(broken.stdout)["video"] == video  # the others are predicted
    assert (broken.exit_code, "broken.mp4" in broken.stderr) == (1, True)
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "model"), str(tmp_path / "again")])
    assert result.exit_code == 0, result.output
    again, model = load_model(tmp_path / "again"), load_model(tmp_path / "model")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    assert again.preprocess == model.preprocess
