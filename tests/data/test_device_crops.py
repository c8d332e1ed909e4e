import re
from functools import partial

import pytest
import torch

from tubelet.clip import ClipGrid
from tubelet.data.augment import Augment
from tubelet.data.crops import Box, MultiScale, RandomResized
from tubelet.data.datamodule import VideoDataModule
from tubelet.data.device_crops import Frames, View, collate_frames, crop_view
from tubelet.data.transforms import Preprocess
from tubelet.masking import tube

GRID = ClipGrid(frames=4, height=32, width=32, tubelet=2, patch=8)
CPU = torch.device("cpu")


def batches(videos, tmp_path, crops, **settings):
    settings = {"repeats": 3, "batch_size": 2, "num_workers": 0, "stride": 2, "reader": "pyav"} | settings
    data = VideoDataModule(
        train=str(videos), crops=crops, grid=GRID, preprocess=Preprocess(), masking=partial(tube, ratio=0.75),
        run_dir=tmp_path, **settings,
    )  # fmt: skip
    data.setup("fit")
    loader = data.train_dataloader()
    return [data.on_after_batch_transfer(data.transfer_batch_to_device(batch, CPU, 0), 0) for batch in loader]


@pytest.mark.parametrize("crop", [MultiScale(), MultiScale((1.0,)), RandomResized()], ids=repr)
@pytest.mark.parametrize("workers", [0, 2])
def test_the_views_are_those_of_the_loader(videos, tmp_path, crop, workers):
    one, other = (
        batches(videos, tmp_path, crops, augment=Augment(crop), num_workers=workers if crops == "device" else 0)
        for crops in ("loader", "device")
    )
    assert len(one) == len(other) == 3
    step = torch.tensor([1 / 255 / 0.229, 1 / 255 / 0.224, 1 / 255 / 0.225]).view(1, 3, 1, 1, 1)
    for a, b in zip(one, other, strict=True):
        assert a.clip.shape == b.clip.shape == (6, 3, 4, 32, 32)
        assert a.clip.dtype == b.clip.dtype == torch.float32
        assert ((a.clip - b.clip).abs() <= step).all()
        assert torch.equal(a.mask.hidden, b.mask.hidden)
        assert torch.equal(a.label, b.label)
        assert torch.equal(a.index, b.index)
        assert (a.views, len(a)) == (b.views, len(b))
    assert len({tuple(clip.flatten()[:50].tolist()) for clip in other[0].clip}) > 2  # the views differ


def test_videos_of_different_sizes_share_a_batch():
    samples = [
        Frames(
            torch.full((2, h, w, 3), value, dtype=torch.uint8),
            (View(Box(0, 0, h, w), False),),
            None,
            torch.tensor(0),
            value,
        )
        for h, w, value in ((40, 60, 7), (33, 20, 9))
    ]
    batch = collate_frames(samples).crop((8, 8))
    assert batch.clip.shape == (2, 3, 2, 8, 8)
    assert torch.allclose(batch.clip, torch.tensor([7.0, 9.0]).view(2, 1, 1, 1, 1).expand_as(batch.clip))
    assert batch.mask is None
    assert batch.index.tolist() == [7, 9]


def test_a_box_by_hand():
    """A box of the size asked for is only cut out, and mirrored."""
    frames = torch.arange(2 * 4 * 5 * 3, dtype=torch.uint8).view(2, 4, 5, 3)
    clip = crop_view(frames, View(Box(1, 2, 2, 3), mirrored=True), (2, 3))  # [C,T,h,w]
    assert torch.equal(clip, frames[:, 1:3, 2:5].flip(2).permute(3, 0, 1, 2).float())


@pytest.mark.parametrize(
    ("key", "value"), [("erase", 0.25), ("rand_augment", "rand-m7-n4-mstd0.5-inc1"), ("reverse", True)]
)
def test_what_only_the_loader_has_is_refused(videos, tmp_path, key, value):
    expected = re.escape(f"data.crops=device only crops, resizes and flips: turn off data.augment.{key} ({value})")
    with pytest.raises(ValueError, match=expected):
        batches(videos, tmp_path, "device", augment=Augment(**{key: value}))
