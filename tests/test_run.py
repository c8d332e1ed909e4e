"""Whole runs through `run.main`, as train.py starts them, on six small video files."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from tubelet import run
from tubelet.loggers.metrics_csv import read_metrics
from tubelet.runtime.checkpoints import Checkpoints
from tubelet.weights.load import load_model

CONF = Path(__file__).parent.parent / "conf"
TINY = [
    "name=try", "data=manifest", "data.batch_size=2", "data.repeats=2", "data.num_workers=0", "data.stride=2",
    "encoder.num_frames=4", "encoder.image_size=16", "encoder.dim=32", "encoder.depth=2", "encoder.num_heads=2",
    "decoder.dim=16", "decoder.depth=1", "decoder.num_heads=2",
    "optim.warmup_epochs=1", "trainer=cpu", "trainer.precision=32-true",
    "trainer.log_every_n_steps=1", "logger=none", "callbacks.progress=null",
    "callbacks.checkpoints.every_n_steps=2",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def config(videos: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*TINY, f"data.train={videos}", f"data.val={videos}", *overrides])


def only_run() -> Path:
    (path,) = Path("runs/try").iterdir()
    return path


def weights(path: Path) -> dict[str, Any]:
    return torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)


def test_a_run_leaves_what_it_promises(videos: Path) -> None:
    metrics = run.main(config(videos, "trainer.max_steps=6", "optim.clip_grad=0.1", "optim.min_lr=1e-5"))
    path = only_run()
    assert {"train/loss", "val/loss", "val/patch_mean_loss", "lr", "grad_norm"} <= set(metrics)
    names = {"config.yaml", "metrics.csv", "summary.json", "loss.png", "checkpoints", "reconstructions"}
    assert names <= {file.name for file in path.iterdir()}
    assert {file.suffix for file in (path / "reconstructions").iterdir()} == {".png", ".gif"}
    assert json.loads((path / "summary.json").read_text())["steps"] == 6
    facts = json.loads((path / "facts.json").read_text())
    assert facts["videos"] == {"train": 6, "val": 6}
    assert facts["precision"] == "32-true"
    assert {"hardware", "versions"} <= facts.keys()
    curves = read_metrics(path / "metrics.csv")
    assert [step for step, _ in curves["train/loss"]] == [0, 1, 2, 3, 4, 5]
    # the last learning rate of the schedule is exactly the minimum, scaled by the global batch
    assert curves["lr"][-1][1] == pytest.approx(1e-5 * 2 / 256)
    assert not list(path.rglob("*.part"))


def test_the_checkpoint_is_a_model_wherever_it_is_moved(videos: Path, tmp_path: Path) -> None:
    run.main(config(videos, "trainer.max_steps=2", "masking.ratio=0.5"))
    moved = tmp_path / "moved.ckpt"
    (only_run() / "checkpoints" / "last.ckpt").rename(moved)
    model = load_model(moved)
    assert model.preprocess.stride == 2
    assert model.grid.frames == 4
    state = torch.load(moved, weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[f"model.{name}"]) for name, value in model.state_dict().items())


class Crash(Checkpoints):
    """Dies after a step that was not saved."""

    at = 5

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        super().on_train_batch_end(trainer, *arguments)
        if trainer.global_step == self.at:
            raise KeyError("power cut")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_equals_an_uninterrupted_one_bitwise(videos: Path, workers: int) -> None:
    length = ["trainer.max_steps=8", f"data.num_workers={workers}", "encoder.drop_path=0.2"]
    run.main(config(videos, *length, "name=whole"))
    (whole,) = Path("runs/whole").iterdir()
    crash = config(videos, *length)
    crash.callbacks.checkpoints._target_ = f"{__name__}.Crash"
    with pytest.raises(KeyError, match="power cut"):
        run.main(crash)  # 3 steps an epoch: saved after step 4, in the middle of the second, died after step 5
    saved = only_run() / "config.yaml"
    saved.write_text(saved.read_text().replace(f"{__name__}.Crash", "tubelet.runtime.checkpoints.Checkpoints"))
    run.main(config(videos, *length, "resume=auto"))
    expected, found = weights(whole), weights(only_run())
    assert found["global_step"] == 8
    assert all(torch.equal(value, found["state_dict"][name]) for name, value in expected["state_dict"].items())
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (expected, found)]
    assert all(torch.equal(states[0][i][k], states[1][i][k]) for i in states[0] for k in states[0][i])
    rows = [read_metrics(path / "metrics.csv")["train/loss"] for path in (whole, only_run())]
    assert rows[0] == rows[1]


def test_a_requeued_job_goes_on_where_it_was(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requeued before its first checkpoint, then after it, and once more when it had finished."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    job = config(videos, "trainer.max_steps=6")
    job.callbacks.checkpoints._target_ = f"{__name__}.Crash"
    job.callbacks.checkpoints.every_n_steps = 10
    with pytest.raises(KeyError, match="power cut"):
        run.main(job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(KeyError, match="power cut"):
        run.main(job)
    rows = read_metrics(only_run() / "metrics.csv")["train/loss"]
    assert [step for step, _ in rows] == [0, 1, 2, 3]  # once each
    monkeypatch.setattr(Crash, "at", 7)
    metrics = run.main(job)
    assert [step for step, _ in read_metrics(only_run() / "metrics.csv")["train/loss"]] == [0, 1, 2, 3, 4, 5]
    assert run.main(job) == metrics


def test_resume_auto_starts_anew_once_a_run_is_finished(videos: Path) -> None:
    for _ in range(2):
        run.main(config(videos, "trainer.max_steps=2", "resume=auto"))
    assert len(list(Path("runs/try").iterdir())) == 2


def test_a_run_starts_from_weights(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.main(config(videos, "trainer.max_steps=2"))
    first = only_run()
    metrics = run.main(config(videos, "trainer.max_steps=2", f"weights={first}", "name=next", "optim.base_lr=1e-12",
                              "optim.min_lr=0", "optim.warmup_lr=0"))  # fmt: skip
    assert metrics["val/loss"] == pytest.approx(json.loads((first / "summary.json").read_text())["val/loss"], rel=1e-4)
    assert "last.ckpt" in capsys.readouterr().out


def test_validation_alone(videos: Path) -> None:
    run.main(config(videos, "trainer.max_steps=3"))
    expected = json.loads((only_run() / "summary.json").read_text())["val/loss"]
    metrics = run.main(config(videos, "stage=validate", f"weights={only_run()}", "name=validation"))
    assert metrics["val/loss"] == pytest.approx(expected, rel=1e-6)


def test_every_bad_video_is_named_and_training_goes_on(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    rows = ["path"] + [str(videos.parent / f"{i}.mp4") for i in range(5)] + ["broken.mp4"]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    run.main(config(videos, f"data.train={tmp_path / 'list.csv'}", "data.max_bad_share=0.5", "trainer.max_steps=6"))
    with (only_run() / "bad_videos.csv").open() as file:
        assert [Path(row["path"]).name for row in csv.DictReader(file)] == ["broken.mp4"]


def test_a_refused_config_leaves_no_directory(videos: Path) -> None:
    with pytest.raises(ValueError, match=r"masking\.ratio"):
        run.main(config(videos, "masking.ratio=0.01"))
    assert not Path("runs").exists()
