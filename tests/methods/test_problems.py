"""Several labels and numbers: from a manifest through training, testing and export, as for one class."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import DictConfig
from typer.testing import CliRunner

from tubelet import run
from tubelet.cli import app
from tubelet.data.dataset import Batch
from tubelet.data.manifest import Manifest
from tubelet.encoders.vit import VideoViT
from tubelet.methods.base import Plan
from tubelet.methods.classification import Classification
from tubelet.methods.problems import SeveralClasses
from tubelet.models.classifier import VideoClassifier
from tubelet.optim.adamw import AdamW
from tubelet.weights.load import load_model
from tubelet.weights.save import save_pretrained

Config = Callable[..., DictConfig]
COLUMNS = {
    "labels": ["0", "1;2", "0;2", "1", "[]", "0;1;2"],
    "values": ["60;1", "20;1", "40;2", "80;2", "50;3", "55;3"],
}


def listed(videos: Path, folder: Path, column: str, cells: list[str] | None = None) -> list[str]:
    """Overrides of the three splits: a manifest in which the six videos have these cells."""
    rows = [f"{videos.parent / f'{i}.mp4'},{cell}" for i, cell in enumerate(cells or COLUMNS[column])]
    (folder / f"{column}.csv").write_text("\n".join([f"path,{column}", *rows]) + "\n")
    return [f"data.{split}={folder / column}.csv" for split in ("train", "val", "test")]


def average_precision(scores: torch.Tensor, truth: torch.Tensor) -> float:
    """Of one class: the mean, over its videos, of the precision among all videos with at least their score."""
    shares = [truth[scores >= scores[i]].mean() for i in truth.nonzero().flatten()]
    return float(torch.stack(shares).mean())


def latest(name: str) -> Path:
    return max(Path("runs", name).iterdir(), key=lambda path: path.stat().st_mtime)


@pytest.mark.parametrize(
    ("column", "problem", "method", "figures"),
    [
        ("labels", "multi_label_classification", "scratch", {"val/map"}),
        ("values", "regression", "scratch", {"val/mse", "val/mae", "val/r2"}),
        pytest.param("labels", "multi_label_classification", "linear", {"val/map_lr1"}, marks=pytest.mark.slow),
        pytest.param("values", "regression", "linear", {"val/r2_lr1"}, marks=pytest.mark.slow),
    ],
)
def test_from_manifest_to_predictions(
    tiny: Config, videos: Path, tmp_path: Path, column: str, problem: str, method: str, figures: set[str]
) -> None:
    lists = listed(videos, tmp_path, column)
    start: list[str] = []
    if method == "linear":
        run.main(tiny("name=start", "trainer.max_epochs=1"))
        start = [f"weights={latest('start')}"]
    speed = ["callbacks.throughput.warmup=1", "callbacks.throughput.window=1"]
    metrics = run.main(tiny("trainer.max_epochs=1", *speed, *start, *lists, method=method))
    assert figures | {"tflops"} <= metrics.keys()
    trained = latest("try")
    table = list(csv.DictReader((trained / ("per_class.csv" if column == "labels" else "per_value.csv")).open()))
    assert len(table) == (3 if column == "labels" else 2)
    assert (trained / "checkpoints" / "best.ckpt").exists()
    model = load_model(trained)
    assert model.problem == problem
    if column == "values":  # units are of the training videos
        assert model.value_mean.tolist() == pytest.approx([50.833, 2], abs=1e-3)

    metrics = run.main(tiny("name=test", *lists, "stage=test", f"weights={trained}", method=method))
    found = pq.read_table(latest("test") / "predictions.parquet").to_pydict()
    if column == "labels":
        truth = torch.tensor([[float(c in cell.split(";")) for c in "012"] for cell in COLUMNS["labels"]])
        scores = torch.tensor(found["probabilities"])
        expected = sum(average_precision(scores[:, c], truth[:, c]) for c in range(3)) / 3
        assert metrics["test/map"] == pytest.approx(expected, abs=1e-6)
        assert found["labels"][1] == [1, 2]
    else:
        truth, guess = torch.tensor(found["values"]), torch.tensor(found["predicted"])
        expected = 1 - (truth - guess).square().sum(0) / (truth - truth.mean(0)).square().sum(0)
        assert metrics["test/r2"] == pytest.approx(float(expected.mean()), abs=1e-5)

    printed = CliRunner().invoke(app, ["predict", str(trained), str(videos.parent / "0.mp4"), "--json"])
    line = json.loads(printed.stdout.splitlines()[-1])
    assert list(line["values"]) == ["0", "1"] if column == "values" else len(line["top"]) == 3


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_transformers_computes_the_same(tmp_path: Path, problem: str) -> None:
    from transformers import AutoModelForVideoClassification

    torch.manual_seed(0)
    encoder = VideoViT(image_size=16, num_frames=4, patch_size=8, dim=24, depth=1, num_heads=2, final_norm=False)
    units = {"value_mean": [50.0, 3.0], "value_std": [20.0, 0.5]} if problem == "regression" else {}
    model = VideoClassifier(encoder, 2, problem, **units).eval()
    torch.nn.init.normal_(model.head.weight)
    save_pretrained(model, tmp_path / "m")
    theirs = AutoModelForVideoClassification.from_pretrained(tmp_path / "m").eval()
    assert theirs.config.problem_type == problem
    clip = torch.randn(2, 3, 4, 16, 16)
    with torch.no_grad():
        assert torch.allclose(model(clip), theirs(clip.transpose(1, 2)).logits, atol=1e-5)
        theirs.save_pretrained(tmp_path / "theirs")
        again = load_model(tmp_path / "theirs")
        assert again.problem == problem
        assert torch.allclose(model(clip), again(clip), atol=1e-5)


def test_a_class_without_a_video_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "m.csv").write_text("path,labels\na.mp4,0;2\nb.mp4,0\n")
    weight = SeveralClasses(3).check(Manifest.read(tmp_path / "m.csv"), "data.train m.csv", "train", None)
    assert weight.tolist() == [0, 2, 1]
    assert "data.train m.csv: no video of class 1: it is not learned" in caplog.text


def test_losses_by_hand() -> None:
    encoder = VideoViT(image_size=16, num_frames=4, patch_size=8, dim=24, depth=1, num_heads=2)
    logits = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    several = VideoClassifier(encoder, 2, "multi_label_classification")
    label = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    by_hand = -(label * logits.sigmoid().log() + (1 - label) * (1 - logits.sigmoid()).log()).mean()
    assert torch.allclose(several.loss(logits, label), by_hand)
    numbers = VideoClassifier(encoder, 2, "regression", value_mean=[1, 1], value_std=[2, 4])
    assert numbers.loss(logits, label).item() == pytest.approx((0 + (2 / 4) ** 2 + (0.5 / 2) ** 2 + (2 / 4) ** 2) / 4)
    with pytest.raises(ValueError, match="are of a regression, this is a single_label"):
        VideoClassifier(encoder, 2, value_mean=[1, 1], value_std=[2, 4])
    with pytest.raises(ValueError, match="must be 2 numbers"):
        VideoClassifier(encoder, 2, "regression", value_mean=[1], value_std=[2])


def test_mixup_mixes_several_labels_as_it_mixes_the_clips() -> None:
    encoder = VideoViT(image_size=16, num_frames=4, patch_size=8, dim=24, depth=1, num_heads=2)
    model = VideoClassifier(encoder, 3, "multi_label_classification")
    method = Classification(model, {}, AdamW(), Plan(10, 5, 4), mixup=1.0)

    class _Loop:
        total_batch_idx = 5

    class _Trainer:
        fit_loop, global_rank = _Loop, 0

    method._trainer = _Trainer  # type: ignore[assignment]
    label = torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0]])
    clip = label[:, :, None, None, None].expand(4, 3, 4, 16, 16).clone()  # a channel shows each class
    mixed, target, _ = method._mix(Batch(clip, None, label, torch.arange(4)))
    assert torch.allclose(mixed.clip[:, :, 0, 0, 0], target)
    assert not torch.equal(target, label)


@pytest.mark.parametrize(
    ("column", "cells", "settings", "message"),
    [
        ("labels", ["0", "1", "", "1", "0", "2"], [], r"1 of its 6 videos have nothing in the column `labels`"),
        ("labels", ["0", "1", "0", "1", "0", "7"], ["data.num_classes=3"], r"has label 7, but data\.num_classes is 3"),
        ("values", ["1", "2;3", "1", "1", "1", "1"], [], r"the videos have 1 or 2 numbers in the column `values`"),
        (
            "values",
            ["1"] * 6,
            ["model.problem_type=multi_label_classification", "data.num_classes=2", "model.value_mean=null"],
            r"nothing in the column `labels`; the column `values` goes with model\.problem_type=regression",
        ),
    ],
)
def test_bad_labels_are_one_clear_error(
    tiny: Config, videos: Path, tmp_path: Path, column: str, cells: list[str], settings: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run.main(tiny(*listed(videos, tmp_path, column, cells), *settings, method="scratch"))


@pytest.mark.slow
def test_another_kind_of_label_starts_with_a_new_head_and_is_refused_in_testing(
    tiny: Config, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = listed(videos, tmp_path, "labels")
    run.main(tiny("trainer.max_epochs=1", method="scratch"))
    start = f"weights={latest('try')}"
    run.main(tiny("name=other", "trainer.max_epochs=1", start, *several, method="finetune"))
    assert "fresh    head.weight" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"6 of its 6 videos have no label; the column `labels` goes with"):
        run.main(tiny("name=test", "stage=test", start, *several, method="finetune"))
