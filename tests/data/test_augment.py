import random

import numpy as np
import pytest
import torch

from tubelet.data.augment import Augment, erase, rand_augment
from tubelet.data.crops import MultiScale
from tubelet.data.randomness import generator

WHOLE = MultiScale((1.0,))


def noise(t, height, width):
    return torch.randint(0, 256, (t, height, width, 3), dtype=torch.uint8, generator=generator("noise"))


def test_the_default_is_a_crop_and_a_resize():
    frames = noise(2, 40, 40)
    assert torch.equal(Augment(WHOLE)(frames, (40, 40), generator(0)), frames)
    views = [Augment()(frames, (16, 24), generator(i)) for i in (0, 0, 1)]
    assert views[0].shape == (2, 16, 24, 3)
    assert views[0].dtype == torch.uint8
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])


def test_rand_augment_distorts_all_frames_alike():
    frame = noise(1, 32, 48)
    frames = frame.repeat(4, 1, 1, 1)
    distorted = [rand_augment(frames, "rand-m7-n4-mstd0.5-inc1", seed) for seed in range(12)]
    for out in distorted:
        assert out.shape == frames.shape
        assert out.dtype == torch.uint8
        assert all(torch.equal(out[0], other) for other in out)
    assert sum(not torch.equal(out, frames) for out in distorted) >= 10
    assert len({out.numpy().tobytes() for out in distorted}) >= 10
    assert torch.equal(rand_augment(frames, "rand-m7-n4-mstd0.5-inc1", 3), distorted[3])


def test_no_global_generator_is_touched():
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    Augment(rand_augment="rand-m9-n2", erase=1.0)(noise(2, 32, 32), (32, 32), generator(0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]


def test_erasing_fills_one_box_of_every_frame_with_the_same_noise():
    frames = torch.full((3, 40, 60, 3), 7, dtype=torch.uint8)
    shares = []
    for i in range(200):
        out = erase(frames, generator(i))
        changed = (out != 7).any(-1)  # [T,h,w]
        assert torch.equal(out[0], out[1])
        assert torch.equal(out[0], out[2])
        rows, columns = changed[0].any(1).nonzero().flatten(), changed[0].any(0).nonzero().flatten()
        box = changed[0][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.float().mean() > 0.9  # noise may be 7 by chance
        shares.append(box.numel() / 2400)
    assert 0.015 < min(shares) < 0.05
    assert 0.28 < max(shares) < 0.35
    assert (frames == 7).all()


def test_how_often_it_erases():
    frames = noise(1, 16, 16)
    erased = [not torch.equal(Augment(WHOLE, erase=0.25)(frames, (16, 16), generator(i)), frames) for i in range(400)]
    assert sum(erased) == pytest.approx(100, abs=30)


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"erase must lie in \[0, 1\], got 25"):
        Augment(erase=25)
    with pytest.raises(ValueError, match=r"rand_augment 'm7' is not in timm's notation"):
        Augment(rand_augment="m7")


def drawn(augment, frames, size, count=64):
    """The different clips that it makes of the frames."""
    outs = [augment(frames, size, generator(i)) for i in range(count)]
    return {out.numpy().tobytes(): out for out in outs}.values()


def test_turns_are_quarters_of_a_square_and_halves_of_anything_else():
    frames = noise(3, 16, 16)
    outs = drawn(Augment(WHOLE, turn=True), frames, (16, 16))
    assert len(outs) == 4
    for quarters in range(4):
        assert any(np.array_equal(np.rot90(frames.numpy(), quarters, (1, 2)), out.numpy()) for out in outs)
    wide = noise(3, 16, 24)
    assert len(drawn(Augment(WHOLE, turn=True), wide, (16, 24))) == 2


def test_half_of_the_clips_run_backwards():
    frames = noise(3, 16, 16)
    outs = drawn(Augment(WHOLE, reverse=True), frames, (16, 16))
    assert len(outs) == 2
    assert any(torch.equal(out, frames.flip(0)) for out in outs)


@pytest.mark.parametrize(("channels", "colours"), [(1, 2), (3, 12)])
def test_colours_are_exchanged_and_negated(channels, colours):
    frames = noise(3, 16, 16)[..., :channels]
    outs = drawn(Augment(WHOLE, recolour=True), frames, (16, 16), count=256)
    assert len(outs) == colours
    assert any(torch.equal(out, 255 - frames) for out in outs)
    for out in outs:  # a pixel's channels stay together
        assert torch.equal(out.sort(-1).values, frames.sort(-1).values) or torch.equal(
            out.sort(-1).values, (255 - frames).sort(-1).values
        )
