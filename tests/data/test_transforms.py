import dataclasses

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image

from tubelet.data.crops import Box
from tubelet.data.randomness import generator
from tubelet.data.transforms import Preprocess, flip, resize_box, resize_centre, resize_views


def smooth(t, height, width):
    """Waves, as large areas of a real picture are."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = [torch.sin(x / 17 + k) * torch.cos(y / (11 + 5 * k)) for k in range(3 * t)]
    return ((torch.stack(waves) + 1) * 127).to(torch.uint8).view(t, 3, height, width).permute(0, 2, 3, 1)


def noise(t, height, width):
    return torch.randint(0, 256, (t, height, width, 3), dtype=torch.uint8, generator=generator("noise"))


def test_resize_of_a_box_is_pillows():
    frames = noise(2, 60, 80)
    out = resize_box(frames, Box(5, 10, 48, 40), (32, 24))
    expected = [
        np.asarray(Image.fromarray(f.numpy()[5:53, 10:50]).resize((24, 32), Image.Resampling.BILINEAR)) for f in frames
    ]
    assert out.shape == (2, 32, 24, 3)
    assert (out.int() - torch.from_numpy(np.stack(expected)).int()).abs().max() <= 1


def test_resize_centre():
    frames = noise(2, 60, 80)
    assert torch.equal(resize_centre(frames, (32, 32), short_side=60), frames[:, 14:46, 24:56])
    assert torch.equal(resize_centre(frames, (60, 60)), frames[:, :, 10:70])
    short = resize_centre(frames, (32, 32), short_side=40)  # 40 x 53, margins 8 and 21
    expected = np.asarray(Image.fromarray(frames[0].numpy()).resize((53, 40), Image.Resampling.BILINEAR))
    assert (short[0].int() - torch.from_numpy(expected[4:36, 10:42].copy()).int()).abs().max() <= 1
    assert resize_centre(noise(1, 81, 30), (24, 48)).shape == (1, 24, 48, 3)
    with pytest.raises(ValueError, match="a crop of 64x64 does not fit in frames resized to 40x53"):
        resize_centre(frames, (64, 64), short_side=40)


def test_three_crops_along_the_long_side():
    frames = noise(2, 60, 80)
    left, centre, right = resize_views(frames, (32, 32), 60, crops=3)  # margins 28 and 48
    for view, at in ((left, 0), (centre, 24), (right, 48)):
        assert torch.equal(view, frames[:, 14:46, at : at + 32])
    tall = frames.transpose(1, 2)
    top, bottom = resize_views(tall, (32, 32), 60, crops=2)
    assert torch.equal(top, tall[:, :32, 14:46])
    assert torch.equal(bottom, tall[:, 48:, 14:46])


def test_flip():
    frames = torch.arange(6, dtype=torch.uint8).view(1, 1, 6, 1)
    assert flip(frames).flatten().tolist() == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(("height", "width"), [(240, 320), (340, 256), (97, 131), (480, 270)])
@pytest.mark.parametrize("processor", ["VideoMAEImageProcessor", "VivitImageProcessor"])
def test_evaluation_is_hugging_faces(processor, height, width):
    """At most 2 of 255 before normalisation: they round and we round."""
    transformers = pytest.importorskip("transformers")
    theirs = getattr(transformers, processor)()
    short_side, side = theirs.size["shortest_edge"], theirs.crop_size["height"]
    frames = (noise(2, height, width) // 2 + smooth(2, height, width) // 2).contiguous()
    ours = resize_centre(frames, (side, side), short_side)
    images = [frame.permute(2, 0, 1).numpy() for frame in frames]  # [C,H,W]
    plain = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
    if processor == "VivitImageProcessor":
        plain["offset"] = False
    expected = np.asarray(theirs(images, **plain)["pixel_values"][0])  # [T,C,h,w]
    assert expected.shape == (2, 3, side, side)
    assert np.abs(expected.astype(float) - ours.permute(0, 3, 1, 2).numpy()).max() <= 2


def test_normalise_by_hand_and_back():
    clip = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1, 1)
    videomae = Preprocess()
    expected = [(0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert videomae.normalise(clip).flatten().tolist() == pytest.approx(expected, abs=1e-6)
    vivit = Preprocess(short_side=256, mean=[0.5] * 3, std=[0.5] * 3, scale=1 / 127.5, offset=1.0)
    assert vivit.normalise(clip).flatten().tolist() == pytest.approx([-3, -2.2, 1], abs=1e-6)
    for preprocess in (videomae, vivit):
        pixels = preprocess.denormalise(preprocess.normalise(clip))
        assert pixels.flatten().tolist() == pytest.approx([0, 0.2, 1], abs=1e-6)
        last = preprocess.denormalise(preprocess.normalise(clip).movedim(1, -1), channel_dim=-1)
        assert torch.equal(last.flatten(), pixels.flatten())


def test_preprocess_refuses():
    with pytest.raises(ValueError, match="normalised already"):
        Preprocess().normalise(torch.zeros(1, 3, 1, 1, 1))
    with pytest.raises(ValueError, match="expected 3 channels"):
        Preprocess().normalise(torch.zeros(1, 1, 1, 1, 1, dtype=torch.uint8))
    with pytest.raises(ValueError, match="mean has 2 numbers and std 3"):
        Preprocess(mean=(0.5, 0.5))
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        Preprocess(stride=0)


def test_preprocess_is_plain_data():
    preprocess = Preprocess(short_side=256, mean=[0.5, 0.5, 0.5])
    node = {"_target_": "tubelet.data.transforms.Preprocess", **dataclasses.asdict(preprocess)}
    assert instantiate(node) == preprocess
