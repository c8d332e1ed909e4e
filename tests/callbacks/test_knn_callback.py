"""kNN during pretraining, through whole runs on six small videos."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from tubelet import run
from tubelet.data.load_clip import load_clip
from tubelet.evaluate.knn import knn_scores, pooled_features
from tubelet.loggers.metrics_csv import read_metrics
from tubelet.weights.load import load_model

Config = Callable[..., DictConfig]


def test_it_is_logged_every_n_epochs_and_at_the_end(tiny: Config, videos: Path) -> None:
    metrics = run.main(tiny("trainer.max_epochs=3", "callbacks.knn.every_n_epochs=2"))  # 3 steps an epoch
    (path,) = Path("runs/try").iterdir()
    assert [step for step, _ in read_metrics(path / "metrics.csv")["val/knn_top1"]] == [5, 8]
    # the same from the checkpoint and the files, without the loaders
    model = load_model(path)
    with torch.no_grad():
        clips = torch.cat([load_clip(videos.parent / f"{i}.mp4", model) for i in range(6)])
        features = pooled_features(model.encoder, clips)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    expected = (knn_scores(features, labels, features, 3).argmax(1) == labels).float().mean()
    assert metrics["val/knn_top1"] == pytest.approx(float(expected))


def test_videos_without_labels_are_no_error(
    tiny: Config, videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = ["path", *(str(videos.parent / f"{i}.mp4") for i in range(6))]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    metrics = run.main(tiny(f"data.train={tmp_path / 'list.csv'}", "trainer.max_epochs=1"))
    assert "val/knn_top1" not in metrics
    assert "need labels" in caplog.text
