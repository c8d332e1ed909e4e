"""Fine-tuning and testing, through whole runs on six small videos of three classes."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from tubelet import run
from tubelet.data.dataset import Batch
from tubelet.encoders.vit import VideoViT
from tubelet.methods.base import Plan
from tubelet.methods.classification import Classification
from tubelet.models.classifier import VideoClassifier
from tubelet.optim.adamw import AdamW
from tubelet.weights.load import load_model

Config = Callable[..., DictConfig]


def only_run(name: str = "try") -> Path:
    (path,) = Path("runs", name).iterdir()
    return path


def method(**settings: object) -> Classification:
    torch.manual_seed(0)
    encoder = VideoViT(image_size=16, num_frames=4, patch_size=8, dim=24, depth=2, num_heads=2, final_norm=False)
    return Classification(VideoClassifier(encoder, 3), {}, AdamW(), Plan(10, 5, 4), **settings)


def batch(size: int = 4) -> Batch:
    clip = torch.randn(size, 3, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    return Batch(clip, None, torch.arange(size) % 3, torch.arange(size))


def test_from_pretraining_to_predictions(tiny: Config, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.main(tiny("trainer.max_epochs=1"))
    pretrained = only_run()
    metrics = run.main(tiny("name=fine", f"weights={pretrained}", method="finetune"))
    assert {"train/loss", "val/loss", "val/top1", "val/mean_class"} <= metrics.keys()
    assert "val/top5" not in metrics  # of three classes
    assert "fresh    head.weight" in capsys.readouterr().out
    fine = only_run("fine")
    assert {"confusion.png", "per_class.csv", "loss.png"} <= {file.name for file in fine.iterdir()}
    Image.open(fine / "confusion.png").verify()
    lines = (fine / "per_class.csv").read_text().splitlines()
    assert lines[0] == "label,name,videos,accuracy,mistaken_for"
    assert [line.split(",")[:3] for line in lines[1:]] == [["0", "zero", "2"], ["1", "one", "2"], ["2", "two", "2"]]

    model = load_model(fine)
    assert model.id2label == {0: "zero", 1: "one", 2: "two"}
    test = [f"data.test={videos}", "stage=test", f"weights={fine}", "data.test_clips=2", "data.test_crops=3"]
    metrics = run.main(tiny("name=test", *test, method="finetune"))
    assert metrics["test/videos"] == 6
    table = pq.read_table(only_run("test") / "predictions.parquet").to_pydict()
    assert [Path(path).name for path in table["video"]] == [f"{i}.mp4" for i in range(6)]
    assert table["label"] == [0, 1, 2, 0, 1, 2]
    assert table["views"] == [6] * 6
    guess = torch.tensor(table["probabilities"]).argmax(1)
    assert metrics["test/top1"] == pytest.approx(float((guess == torch.tensor(table["label"])).float().mean()))
    assert metrics["test/top1_low"] <= metrics["test/top1"] <= metrics["test/top1_high"]


def test_a_head_of_other_classes_is_new_in_training_and_refused_in_testing(
    tiny: Config, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.main(tiny("trainer.max_epochs=1", method="scratch"))
    rows = ["path,label", *(f"{videos.parent / f'{i}.mp4'},{i % 2}" for i in range(6))]
    (tmp_path / "two.csv").write_text("\n".join(rows) + "\n")
    two = [f"data.{split}={tmp_path / 'two.csv'}" for split in ("train", "val", "test")]
    weights = f"weights={only_run()}"
    run.main(tiny("name=two", "trainer.max_epochs=1", weights, *two, method="finetune"))
    assert "dropped  head.weight" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"head\.weight is \[3, 24\], the model needs \[2, 24\]"):
        run.main(tiny("name=test", "stage=test", weights, *two, method="finetune"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 0, 1, 3], r"data\.train .*list\.csv: label 3 is unknown, the model has 3 classes \(0 to 2\)"),
        ([0, 1, 1, 0, 1, 0], r"data\.train .*list\.csv: no video of class 2, of 3 classes"),
        ([1, 2, 1, 2, 1, 2], r"data\.train .*list\.csv: no video has label 0, the labels go from 1 to 2"),
        ([0, 1, 2, 0, 1, ""], r"data\.train .*list\.csv: 1 of its 6 videos have no label"),
    ],
)
def test_bad_labels_are_one_clear_error(
    tiny: Config, videos: Path, tmp_path: Path, labels: list[int | str], message: str
) -> None:
    rows = ["path,label", *(f"{videos.parent / f'{i}.mp4'},{label}" for i, label in enumerate(labels))]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(ValueError, match=message):
        run.main(tiny(f"data.train={tmp_path / 'list.csv'}", "model.num_classes=3", method="scratch"))


def test_weights_and_masking_must_go_with_the_method(tiny: Config) -> None:
    with pytest.raises(ValueError, match=r"weights: a value is missing: the pretrained weights"):
        run.main(tiny(method="finetune"))
    cfg = tiny()
    cfg.masking = None
    with pytest.raises(ValueError, match=r"masking: a value is missing"):
        run.main(cfg)


def test_finite_loss_gradient_everywhere_and_a_falling_loss() -> None:
    trained = method(label_smoothing=0.1).train()
    optimizer = torch.optim.Adam(trained.parameters(), lr=1e-3)
    losses = []
    for _ in range(30):
        loss = trained.step(batch()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained.model.parameters())
    assert losses[-1] < losses[0] - 0.3


class _Loops:
    total_batch_idx = 7


class _Trainer:
    fit_loop = _Loops()
    global_rank = 0


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0)])
def test_mixing_is_alike_in_all_frames_and_repeats_itself(mixup: float, cutmix: float) -> None:
    trained = method(mixup=mixup, cutmix=cutmix, label_smoothing=0.1)
    trained._trainer = _Trainer()  # type: ignore[assignment]
    size = 16
    # clip b is all b in every pixel: what is mixed in is seen as its share
    clip = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 3, 4, size, size).contiguous()
    source = Batch(clip.clone(), None, torch.tensor([0, 1, 2, 1]), torch.arange(4))
    state = torch.get_rng_state()
    mixed, target, smoothing = trained._mix(Batch(clip.clone(), None, source.label, source.index))
    again, target_again, _ = trained._mix(Batch(clip.clone(), None, source.label, source.index))
    assert torch.equal(mixed.clip, again.clip)
    assert torch.equal(target, target_again)
    assert torch.equal(state, torch.get_rng_state())
    assert smoothing == 0.0
    assert not torch.equal(mixed.clip, clip)
    assert (mixed.clip == mixed.clip[:, :1, :1]).all()  # every frame, every channel
    # the labels follow the pixels: clip 0 (class 0) with clip 3 (class 1), each smoothed by 0.1 over three classes
    share = float(mixed.clip[0, 0, 0].mean()) / 3  # of clip 3 in clip 0
    off = 0.1 / 3
    expected = torch.tensor([(1 - share) * 0.9 + off, share * 0.9 + off, off])
    assert torch.allclose(target[0], expected, atol=1e-5)


def test_mixing_an_odd_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="3 is odd"):
        method(mixup=0.8).train().step(batch(3))


def test_rare_classes_weigh_more(tiny: Config, videos: Path, tmp_path: Path) -> None:
    rows = ["path,label", *(f"{videos.parent / f'{i}.mp4'},{label}" for i, label in enumerate([0, 0, 0, 1, 1, 2]))]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    cfg = tiny(f"data.train={tmp_path / 'list.csv'}", "method.class_balanced=true", method="scratch")
    config = OmegaConf.to_container(cfg, resolve=True)
    built, data, trainer = run.build(config, *run.start_model(config), tmp_path)
    built._trainer = trainer
    trainer.datamodule = data  # type: ignore[misc]
    built.setup("fit")
    assert torch.allclose(built.class_weight, torch.tensor([6 / 9, 1.0, 2.0]))


def test_classes_are_matched_by_name(
    tiny: Config, videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A list with the same classes in another order is tested as what it is; other classes are refused."""
    run.main(tiny("name=first", "trainer.max_epochs=1", method="scratch"))
    (weights,) = (tmp_path / "runs/first").iterdir()
    same = run.main(tiny("name=same", "stage=test", f"weights={weights}", f"data.test={videos}", method="finetune"))

    def listed(folder: str, names: list[str], labels: list[int]) -> Path:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "labels.txt").write_text("\n".join(names) + "\n")
        rows = ["path,label", *(f"{videos.parent / f'{i}.mp4'},{label}" for i, label in enumerate(labels))]
        (tmp_path / folder / "list.csv").write_text("\n".join(rows) + "\n")
        return tmp_path / folder / "list.csv"

    turned = listed("turned", ["two", "One", "zero"], [2, 1, 0, 2, 1, 0])  # the same videos, classes in another order
    other = run.main(tiny("name=turned", "stage=test", f"weights={weights}", f"data.test={turned}", method="finetune"))
    assert "matched by name" in caplog.text
    assert other == same
    strange = listed("strange", ["zero", "one", "three"], [0, 1, 2, 0, 1, 2])
    with pytest.raises(ValueError, match=r"classes that the model does not have: three; the model has zero, one, two"):
        run.main(tiny("name=strange", "stage=test", f"weights={weights}", f"data.test={strange}", method="finetune"))
