import csv
import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from tubelet.clip import ClipGrid
from tubelet.data.datamodule import VideoDataModule
from tubelet.data.reader import VideoError
from tubelet.data.transforms import Preprocess
from tubelet.masking import tube

GRID = ClipGrid(frames=4, height=32, width=32, tubelet=2, patch=8)


def datamodule(videos, tmp_path, stage="fit", **settings):
    defaults = {"train": str(videos), "val": str(videos), "batch_size": 2, "num_workers": 0, "stride": 2}
    known = {"grid": GRID, "preprocess": Preprocess(), "masking": partial(tube, ratio=0.75), "run_dir": tmp_path}
    data = VideoDataModule(**defaults | known | settings)
    data.prepare_data()
    data.setup(stage)
    return data


def equal(a, b):
    pairs = [(a.clip, b.clip), (a.label, b.label), (a.index, b.index)]
    pairs += [(a.mask.visible, b.mask.visible), (a.mask.hidden, b.mask.hidden)]
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("loader", ["train_dataloader", "val_dataloader"])
def test_workers_change_nothing(videos, tmp_path, loader):
    batches = [
        list(getattr(datamodule(videos, tmp_path, num_workers=workers, repeats=2), loader)()) for workers in (0, 2)
    ]
    assert len(batches[0]) == 3
    assert all(equal(a, b) for a, b in zip(*batches, strict=True))


def test_two_ranks_see_the_same_global_batches(videos, tmp_path):
    def batches(rank, ranks, position=0):
        data = datamodule(videos, tmp_path)
        total = SimpleNamespace(processed=position)
        loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(total=total)))
        data.trainer = SimpleNamespace(global_rank=rank, world_size=ranks, fit_loop=loop)
        return list(data.train_dataloader())

    alone = batches(0, 1)
    for one, first, second in zip(alone, batches(0, 2), batches(1, 2), strict=True):
        assert one.index.tolist() == [first.index.item(), second.index.item()]
        assert torch.equal(one.clip, torch.cat([first.clip, second.clip]))
        assert torch.equal(one.mask.hidden, torch.cat([first.mask.hidden, second.mask.hidden]))
    assert all(equal(a, b) for a, b in zip(batches(0, 1, position=1), alone[1:], strict=True))


def test_validation_is_in_order_and_always_the_same(videos, tmp_path):
    data = datamodule(videos, tmp_path)
    first, second = list(data.val_dataloader()), list(data.val_dataloader())
    assert torch.cat([batch.index for batch in first]).tolist() == [0, 1, 2, 3, 4, 5]
    assert all(equal(a, b) for a, b in zip(first, second, strict=True))


def test_pixels_are_normalised_after_the_transfer(videos, tmp_path):
    data = datamodule(videos, tmp_path)
    batch = next(iter(data.train_dataloader()))
    assert batch.clip.dtype == torch.uint8
    assert batch.clip.is_contiguous(memory_format=torch.channels_last_3d)  # as decoders write pixels
    normalised = data.on_after_batch_transfer(batch, 0)
    assert normalised.clip.is_contiguous()
    expected = (batch.clip[0, 1, 0, 0, 0].item() / 255 - 0.456) / 0.224
    assert normalised.clip[0, 1, 0, 0, 0].item() == pytest.approx(expected, abs=1e-6)


def test_sizes_and_mistakes(videos, tmp_path):
    data = datamodule(videos, tmp_path, batch_size=4)
    assert data.steps_per_epoch == 1
    assert {split: len(dataset) for split, dataset in data.datasets.items()} == {"train": 6, "val": 6}
    assert datamodule(videos, tmp_path, val=None).val_dataloader() == []
    with pytest.raises(ValueError, match=r"none.csv: no such manifest"):
        datamodule(videos, tmp_path, val=str(tmp_path / "none.csv"))
    datamodule(videos, tmp_path, test=str(tmp_path / "none.csv"))  # which this stage does not read
    with pytest.raises(ValueError, match=r"data.train .*videos.csv has label 2, but data.num_classes is 2"):
        datamodule(videos, tmp_path, num_classes=2)
    with pytest.raises(ValueError, match=r"data.train is not set"):
        datamodule(videos, tmp_path, train=None)
    with pytest.raises(ValueError, match=r"batch_size 2 is not divisible by 1 ranks x 4 accumulated"):
        datamodule(videos, tmp_path, accumulate=4).train_dataloader()
    with pytest.raises(ValueError, match="reader must be auto or one of"):
        datamodule(videos, tmp_path, reader="opencv")


def test_unverified_training_videos_name_the_price_of_verifying(videos, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        datamodule(videos, tmp_path)
    (line,) = [record.message for record in caplog.records if "not verified" in record.message]
    assert line.startswith(f"6 of 6 videos of {videos} are not verified")
    assert "tubelet verify" in line
    assert " s on " in line
    caplog.clear()
    (tmp_path / "v.csv").write_text(f"path,status\n{videos.parent / '0.mp4'},ok\n")
    with caplog.at_level(logging.INFO):
        datamodule(videos, tmp_path, train=str(tmp_path / "v.csv"), batch_size=1)
    assert "not verified" not in caplog.text


def test_a_small_shared_memory_is_said_at_once(videos, tmp_path, monkeypatch):
    free = SimpleNamespace(free=20_000)
    monkeypatch.setattr("tubelet.data.worker.shutil.disk_usage", lambda path: free)
    message = r"/dev/shm has 0 MB free, and data.num_workers=2 needs 0 MB .*--shm-size"
    for loader in ("train_dataloader", "val_dataloader"):
        with pytest.raises(ValueError, match=message):  # 2 workers x 2 clips x 3 x 4 x 32 x 32 bytes
            getattr(datamodule(videos, tmp_path, num_workers=2), loader)()
        getattr(datamodule(videos, tmp_path, num_workers=0), loader)()
    free.free = 2 * 2 * 3 * 4 * 32 * 32
    datamodule(videos, tmp_path, num_workers=2).train_dataloader()
    with pytest.raises(ValueError, match=message):
        datamodule(videos, tmp_path, num_workers=2, repeats=2).train_dataloader()


def test_prepare_runs_before_anything_is_read(videos, tmp_path):
    target = tmp_path / "made" / "videos.csv"

    def prepare():
        target.parent.mkdir()
        lines = [f"{videos.parent}/{i}.mp4 0" for i in range(6)]
        target.write_text("\n".join(lines))

    assert len(datamodule(videos, tmp_path, train=str(target), prepare=prepare).datasets["train"]) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_test_batches_hold_all_views(videos, tmp_path, workers):
    data = datamodule(
        videos, tmp_path, test=str(videos), test_clips=2, test_crops=3, batch_size=12, num_workers=workers, train=None,
        val=None, stage="test",
    )  # fmt: skip
    batches = list(data.test_dataloader())
    assert [batch.views for batch in batches] == [6, 6, 6]
    assert [batch.clip.shape for batch in batches] == [(12, 3, 4, 32, 32)] * 3  # two videos of six views
    assert torch.cat([batch.index for batch in batches]).tolist() == [index for index in range(6) for _ in range(6)]
    assert data.on_after_batch_transfer(batches[0], 0).clip.dtype == torch.float32


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_says_what_it_left_out(videos, tmp_path, caplog, workers):
    paths = [str(videos.parent / f"{i}.mp4") for i in range(6)]
    for i in (2, 3, 5):
        paths[i] = str(tmp_path / f"bad{i}.mp4")
        Path(paths[i]).write_text("not a video")
    (tmp_path / "val.csv").write_text("\n".join(["path", *paths]))
    settings = {"val": str(tmp_path / "val.csv"), "num_workers": workers}
    data = datamodule(videos, tmp_path, max_bad_share=0.5, **settings)
    with caplog.at_level(logging.WARNING):
        batches = list(data.val_dataloader())
    assert [batch.index.tolist() for batch in batches] == [[0, 1], [4]]  # 2 and 3 would have been one batch
    assert caplog.records[-1].message == f"3 of 6 videos were left out: {tmp_path / 'bad_videos_val.csv'}"
    rows = list(csv.reader((tmp_path / "bad_videos_val.csv").open()))
    assert sorted(row[0] for row in rows[1:]) == [paths[2], paths[3], paths[5]]
    with pytest.raises(VideoError, match=r"of 6 videos cannot be read, more than the share of 0.4"):
        list(datamodule(videos, tmp_path, max_bad_share=0.4, **settings).val_dataloader())


class Recorder(L.LightningModule):
    """Notes what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_index):
        self.seen.append((batch.index.tolist(), batch.clip.double().sum().item()))
        return self.weight * 1.0

    def validation_step(self, batch, batch_index):
        assert batch.clip.dtype == torch.float32

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(videos, tmp_path, stop, checkpoint=None, **settings):
    module = Recorder()
    trainer = L.Trainer(
        max_steps=stop,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=1,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, datamodule=datamodule(videos, tmp_path, **settings), ckpt_path=checkpoint, weights_only=True)
    return module.seen, trainer


@pytest.mark.parametrize(
    ("stop", "workers"), [*(pytest.param(stop, 0, marks=pytest.mark.slow) for stop in (2, 3)), (4, 0), (4, 2)]
)
def test_a_lightning_run_resumed_mid_epoch_sees_the_same_batches(videos, tmp_path, stop, workers):
    whole, _ = fit(videos, tmp_path, 8)
    before, trainer = fit(videos, tmp_path, stop, num_workers=workers)
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    after, _ = fit(videos, tmp_path, 8, tmp_path / "stopped.ckpt", num_workers=workers)
    assert before + after == whole


def test_a_loader_out_of_step_is_refused(videos, tmp_path, monkeypatch):
    monkeypatch.setattr("tubelet.data.datamodule.TrainingBatches.__iter__", lambda self: iter([[(0, 0), (0, 0)]] * 3))
    with pytest.raises(RuntimeError, match="out of step with the trainer at batch 0"):
        fit(videos, tmp_path, 2)
