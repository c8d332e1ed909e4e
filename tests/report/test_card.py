"""A model card: what a run knows is on it, with how each number was measured; what nobody knows is not invented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tubelet.encoders.vivit import FactorisedViViT
from tubelet.models.classifier import VideoClassifier
from tubelet.models.masked import MaskedModel
from tubelet.nodes import describe
from tubelet.report.card import card_of, write_card
from tubelet.weights.published import PUBLISHED
from tubelet.weights.save import save_pretrained

SMALL = {"image_size": 32, "num_frames": 4, "dim": 24, "depth": 1, "temporal_depth": 1, "num_heads": 2}
CONFIG: dict[str, Any] = {
    "name": "tuned", "stage": "fit", "seed": 3, "weights": "MCG-NJU/videomae-base",
    "data": {"train": "/home/me/ucf101/train.csv", "val": "/home/me/ucf101/val.csv", "batch_size": 8, "repeats": 2,
             "test": "/home/me/ucf101/test.csv", "test_clips": 5, "test_crops": 3},
    "method": {"_target_": "tubelet.methods.classification.Classification"},
    "encoder": {"_target_": "tubelet.encoders.vit.VideoViT", "drop_path": 0.1},
    "decoder": {"_target_": "tubelet.decoders.self_attention.SelfAttentionDecoder"},
    "optim": {"base_lr": 0.001, "weight_decay": 0.05}, "callbacks": {"knn": {"k": 20, "max_clips": 2000}},
}  # fmt: skip


def write_run(directory: Path, model: Any, config: dict[str, Any], metrics: str, summary: dict[str, Any]) -> Path:
    """What a run leaves, its best checkpoint after 5 steps of 10."""
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    (directory / "metrics.csv").write_text(metrics)
    (directory / "summary.json").write_text(json.dumps({"name": "tuned", "steps": 10, "seconds": 7200.0, **summary}))
    facts = {
        "videos": {"train": 9537, "val": 120, "test": 60},
        "precision": "bf16-mixed",
        "hardware": "8 x NVIDIA H100",
        "versions": {"torch": "2"},
    }
    (directory / "facts.json").write_text(json.dumps(facts))
    contents = {"model_config": describe(model), "state_dict": model.state_dict(), "global_step": 5}
    torch.save(contents, directory / "checkpoints" / "best.ckpt")
    return directory


@pytest.fixture
def classifier() -> VideoClassifier:
    return VideoClassifier(FactorisedViViT(**SMALL), 3, pool="cls", id2label={0: "jump", 1: "run", 2: "sit"})


@pytest.fixture
def tuned(classifier: VideoClassifier, tmp_path: Path) -> Path:
    metrics = "step,val/top1,val/loss,clips_per_s\n4,0.75,1.0,\n9,0.5,1.2,\n9,,,0.04\n"
    return write_run(tmp_path / "tuned", classifier, CONFIG, metrics, {"val/top1": 0.5, "val/loss": 1.2})


def front(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_of_a_run(tuned: Path) -> None:
    card = card_of(tuned, "me/tuned", "cc-by-nc-4.0")
    metadata = front(card)
    assert metadata["license"] == "cc-by-nc-4.0"
    assert metadata["base_model"] == "MCG-NJU/videomae-base"
    assert metadata["library_name"] == "tubelet"
    (results,) = metadata["model-index"][0]["results"]
    assert results["metrics"] == [{"type": "accuracy", "value": 0.75, "name": "val/top1"}]  # of best.ckpt, not the last
    assert results["dataset"] == {"name": "ucf101/val.csv", "type": "ucf101", "split": "val"}
    for line in (
        'model = load_model("me/tuned")',
        "A video classifier of 3 classes, trained on 9,537 videos.",
        "| videos, val | 120 (ucf101/val.csv) |",
        "| hardware | 8 x NVIDIA H100 |",
        "| precision | bf16-mixed |",
        "| hours of training | 1 |",  # 9 steps x 16 clips at 0.04 clips per second
        "| learning rate | 0.001 x 8 / 256 |",
        "| val/top1 | 0.7500 | ucf101/val.csv | the clip in the middle of each of 120 videos, centre crop |",
        "It knows: jump, run, sit.",
        "It was trained from MCG-NJU/videomae-base, which its authors publish under cc-by-nc-4.0.",
    ):
        assert line in card, line
    assert "/home/me" not in card
    assert "decoder" not in card


def test_the_test_of_a_run_is_on_its_card(tuned: Path, classifier: VideoClassifier, tmp_path: Path) -> None:
    config = CONFIG | {"stage": "test", "weights": str(tuned)}
    scores = {"test/top1": 0.7, "test/top1_low": 0.6, "test/top1_high": 0.8, "test/videos": 60.0}
    test = write_run(tmp_path / "test", classifier, config, "step,test/top1\n0,0.7\n", scores)
    card = card_of(tuned, tests=[test])
    assert "5 clips x 3 crops of each of 60 videos, their probabilities averaged; 95% interval 0.6000 to 0.8000" in card
    assert [row["dataset"]["split"] for row in front(card)["model-index"][0]["results"]] == ["val", "test"]
    with pytest.raises(ValueError, match="is no finished run with stage=test"):
        card_of(tuned, tests=[tuned])
    with pytest.raises(ValueError, match=r"tested the weights .*tuned, and the card is of .*test"):
        card_of(test, tests=[test])
    with pytest.raises(ValueError, match="is no run directory"):
        card_of(tuned, tests=[tmp_path])


def test_weights_without_a_run(tmp_path: Path) -> None:
    save_pretrained(MaskedModel(FactorisedViViT(**SMALL)), tmp_path / "model")
    card = card_of(tmp_path / "model")
    assert "These weights came without a record of their training." in card
    assert "None were measured." in card
    assert "not stated by the author" in card
    assert front(card) == {"library_name": "tubelet", "tags": ["video", "tubelet", "masked-autoencoder"]}


def test_only_a_card_is_replaced(tmp_path: Path) -> None:
    card = "---\nlibrary_name: tubelet\ntags:\n- video\n- tubelet\n---\n"
    path = write_card(tmp_path / "README.md", card)
    assert write_card(path, card + "more\n").read_text().endswith("more\n")
    path.write_text("# My project\n\n- tubelet\n")
    with pytest.raises(ValueError, match=r"README\.md exists and is no model card of tubelet"):
        write_card(path, card)
    assert path.read_text().startswith("# My project")


def test_published_checkpoints_are_of_our_encoders() -> None:
    """Their sizes are those of the files of conf/encoder that they name; a figure has a source."""
    conf = Path(__file__).parents[2] / "conf" / "encoder"
    for name, known in PUBLISHED.items():
        assert (conf / f"{known.encoder}.yaml").is_file(), name
        assert (known.top1 is None) == (known.source == ""), name
        assert known.licence, name
    assert len(PUBLISHED) == 23
