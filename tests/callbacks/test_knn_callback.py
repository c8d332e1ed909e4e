"""kNN during pretraining, through whole runs on six small videos."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from tubelet import run
from tubelet.callbacks.knn import KNN
from tubelet.data.load_clip import load_clip
from tubelet.evaluate.knn import knn_scores, pooled_features
from tubelet.evaluate.linear import linear_scores
from tubelet.loggers.metrics_csv import read_metrics
from tubelet.weights.load import load_model

Config = Callable[..., DictConfig]


def test_it_is_logged_every_n_epochs_and_at_the_end(tiny: Config, videos: Path) -> None:
    pretrain = ["callbacks=pretrain", "callbacks.health=null"]
    metrics = run.main(tiny("trainer.max_epochs=3", "callbacks.knn.every_n_epochs=2", *pretrain))  # 3 steps an epoch
    (path,) = Path("runs/try").iterdir()
    assert len(read_metrics(path / "metrics.csv")["val/probe_top1"]) == 2
    assert [step for step, _ in read_metrics(path / "metrics.csv")["val/knn_top1"]] == [5, 8]
    # the same from the checkpoint and the files, without the loaders
    model = load_model(path)
    with torch.no_grad():
        clips = torch.cat([load_clip(videos.parent / f"{i}.mp4", model) for i in range(6)])
        features = pooled_features(model.encoder, clips)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    expected = (knn_scores(features, labels, features, 3).argmax(1) == labels).float().mean()
    assert metrics["val/knn_top1"] == pytest.approx(float(expected))
    expected = (linear_scores(features, labels, features, 3).argmax(1) == labels).float().mean()
    assert metrics["val/probe_top1"] == pytest.approx(float(expected))


@pytest.mark.slow
def test_neither_leaves_a_trace_in_the_weights(tiny: Config) -> None:
    every = ["callbacks=pretrain", "callbacks.knn.every_n_epochs=1"]
    weights = []
    for name, more in {"with": every, "without": ["callbacks.knn=null"]}.items():
        run.main(tiny("trainer.max_epochs=3", f"name={name}", *more))
        (path,) = Path("runs", name).iterdir()
        weights.append(load_model(path).state_dict())
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]), name


SLOW = pytest.mark.slow


@pytest.mark.parametrize("column", [None, pytest.param("labels", marks=SLOW), pytest.param("values", marks=SLOW)])
def test_videos_without_a_class_are_read_by_nobody_and_named_once(
    column: str | None, tiny: Config, videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    cells = {None: "", "labels": ',"0 2"', "values": ",0.5"}[column]
    rows = [f"path,{column}" if column else "path", *(f"{videos.parent / f'{i}.mp4'}{cells}" for i in range(6))]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(KNN, "_features", None)
    every = ["trainer.max_epochs=2", "callbacks=pretrain", "callbacks.knn.every_n_epochs=1", "callbacks.health=null"]
    metrics = run.main(tiny(f"data.train={tmp_path / 'list.csv'}", *every))
    assert not {"val/knn_top1", "val/probe_top1"} & metrics.keys()
    assert caplog.text.count("need labels") == 1
    assert "no val/knn_top1 and val/probe_top1: the videos" in caplog.text
