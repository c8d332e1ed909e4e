"""Exact counts, uniformity, determinism, and what each masking looks like."""

from functools import partial

import pytest
import torch

from tubelet import masking
from tubelet.clip import ClipGrid
from tubelet.masking import Mask

GRID = ClipGrid(16, 224, 224, 2, 16)  # 8 x 14 x 14
SMALL = ClipGrid(8, 32, 48, 2, 8)  # 4 x 4 x 6
GENERATORS = [masking.tube, masking.random, masking.frame, masking.multiblock, masking.running_cell, masking.mixed]


def draw(kind, grid, ratio, seed=0):
    return kind(grid, ratio, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("kind", "ratio", "count"),
    [
        (masking.tube, 0.9, 8 * 176),  # VideoMAE's rounding: int(0.9 * 196), not 177
        (masking.tube, 0.75, 8 * 147),
        (masking.random, 0.9, 1411),
        (masking.frame, 0.875, 7 * 196),
        (masking.multiblock, 0.9, 8 * 176),
        (masking.multiblock, 0.5, 8 * 98),
        (masking.running_cell, 0.5, 8 * 98),
        (masking.running_cell, 0.75, 8 * 147),
        (masking.causal, 0.75, 6 * 196),
        (masking.mixed, 0.9, 8 * 176),  # of a tube; a frame masking alone would hide 7 * 196
    ],
)
def test_exact_count(kind, ratio, count):
    for seed in range(50):
        hidden = draw(kind, GRID, ratio, seed)
        assert hidden.dtype == torch.bool
        assert hidden.shape == (GRID.N,)
        assert int(hidden.sum()) == count


@pytest.mark.parametrize("kind", GENERATORS)
def test_the_same_key_draws_the_same_mask(kind):
    torch.manual_seed(1)
    first = draw(kind, GRID, 0.5, 7)
    torch.manual_seed(2)
    assert torch.equal(first, draw(kind, GRID, 0.5, 7))
    assert any(not torch.equal(first, draw(kind, GRID, 0.5, seed)) for seed in range(8, 20))


@pytest.mark.parametrize("kind", [masking.tube, masking.random, masking.frame, masking.running_cell, masking.mixed])
def test_every_token_is_hidden_equally_often(kind):
    draws = 2000
    share = sum(draw(kind, SMALL, 0.5, seed).double() for seed in range(draws)) / draws
    # five standard deviations of a share of one half
    assert (share - 0.5).abs().max() < 5 * (0.25 / draws) ** 0.5


@pytest.mark.parametrize(("kind", "units"), [(masking.tube, 24), (masking.random, 96), (masking.frame, 4)])
def test_hidden_counts_are_those_of_a_uniform_choice(kind, units):
    """Chi-square of how often each of the units (positions, tokens or time steps) that are drawn is hidden."""
    draws, ratio = 1000, 0.75
    masks = torch.stack([draw(kind, SMALL, ratio, seed) for seed in range(draws)]).view(draws, 4, 24)
    drawn = {24: masks[:, 0], 96: masks.flatten(1), 4: masks[:, :, 0]}[units]  # [draws,units]
    # of draws without replacement: independent ones would vary more, by units / (units - 1)
    spread = draws * ratio * (1 - ratio) * units / (units - 1)
    chi_square = float(((drawn.sum(0) - draws * ratio) ** 2 / spread).sum())
    freedom = units - 1
    assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5


def test_causal_hides_the_future():
    steps = draw(masking.causal, GRID, 0.75).view(8, 196)
    assert steps.float().mean(1).tolist() == [0, 0, 1, 1, 1, 1, 1, 1]


def test_mixed_takes_each_kind_as_often_as_it_says():
    def is_tube(seed):
        hidden = masking.mixed(SMALL, 0.75, torch.Generator().manual_seed(seed), {"tube": 3, "frame": 1})
        return bool((hidden.view(4, 24) == hidden.view(4, 24)[0]).all())

    share = sum(is_tube(seed) for seed in range(800)) / 800
    assert abs(share - 0.75) < 5 * (0.75 * 0.25 / 800) ** 0.5


def test_mixed_hides_all_that_its_kind_hides():
    for seed in range(20):
        hidden = masking.mixed(GRID, 0.9, torch.Generator().manual_seed(seed), {"frame": 1, "random": 1e-9})
        assert int(hidden.view(8, 196).all(1).sum()) == 7
        assert int(hidden.sum()) == 1411  # of random masking, which hides 39 more


def test_a_schedule_by_hand():
    schedule = {"from": 0.5, "to": 0.9, "kind": "linear", "epochs": 9, "levels": 3}
    ratios = [masking.ratio_at(schedule, epoch) for epoch in range(11)]
    assert ratios == pytest.approx([0.5] * 3 + [0.7] * 3 + [0.9] * 5)  # 2 / 8 rounds down to an even level
    cosine = [masking.ratio_at({**schedule, "kind": "cosine", "levels": 99}, epoch) for epoch in (0, 2, 4, 8)]
    assert cosine == pytest.approx([0.5, 0.5 + 0.4 * 0.1464, 0.7, 0.9], abs=3e-3)
    assert masking.ratio_at(schedule, None) == 0.9


def test_a_masking_with_a_schedule_is_that_of_its_epoch():
    scheduled = partial(masking.tube, ratio=0.1, schedule={"from": 0.5, "to": 0.75, "epochs": 2})
    for epoch, ratio in ((0, 0.5), (1, 0.75), (7, 0.75)):
        drawn = masking.at_epoch(scheduled, epoch)(GRID, generator=torch.Generator().manual_seed(3))
        assert torch.equal(drawn, draw(masking.tube, GRID, ratio, 3))
    plain = partial(masking.tube, ratio=0.5)
    assert masking.at_epoch(plain, 3) is plain


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"from": 0.5}, "has the keys from, to, kind, epochs and levels, got from"),
        ({"from": 0.5, "to": 1.0}, r"must lie in \(0, 1\), got 1.0"),
        ({"from": 0.5, "to": 0.9, "kind": "square"}, "must be one of linear, cosine, got square"),
        ({"from": 0.5, "to": 0.9, "levels": 1}, "levels must be at least 2, got 1"),
    ],
)
def test_a_schedule_that_cannot_be(schedule, message):
    with pytest.raises(ValueError, match=message):
        masking.tube(GRID, ratio=0.5, generator=torch.Generator(), schedule=schedule)


def test_multiblock_reaches_every_position():
    share = sum(draw(masking.multiblock, GRID, 0.5, seed).double() for seed in range(300)) / 300
    assert share.min() > 0.01  # corners least: few blocks reach them
    assert share.max() < 1


@pytest.mark.parametrize("kind", [masking.tube, masking.multiblock])
def test_tubes_hide_the_same_positions_at_every_time(kind):
    steps = draw(kind, GRID, 0.9).view(8, 196)
    assert (steps == steps[0]).all()


def test_frame_hides_whole_time_steps():
    steps = draw(masking.frame, GRID, 0.875).view(8, 196).float().mean(1)
    assert sorted(steps.tolist()) == [0.0] + [1.0] * 7


def test_multiblock_hides_neighbours():
    def borders(hidden):
        image = hidden.view(8, 14, 14)[0]
        return int((image[1:] != image[:-1]).sum() + (image[:, 1:] != image[:, :-1]).sum())

    for seed in range(10):
        assert borders(draw(masking.multiblock, GRID, 0.5, seed)) < borders(draw(masking.tube, GRID, 0.5, seed)) / 2


def test_running_cell_by_hand():
    """The hidden pair of a 2x2 cell moves on by one place, in reading order, each time step."""
    hidden = draw(masking.running_cell, ClipGrid(8, 4, 4, 1, 2), 0.5).view(8, 4).int().tolist()
    rounds = [[1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 0]]
    start = rounds.index(hidden[0])
    assert hidden == [rounds[(start + step) % 4] for step in range(8)]


def test_dual_masking_predicts_hidden_tokens_that_the_decoder_keeps():
    counts = set()
    for seed in range(20):
        both = masking.dual(GRID, ratio=0.9, generator=torch.Generator().manual_seed(seed))
        mask = Mask.from_hidden(both[None])
        assert mask.hidden[0].tolist() == (both[0] & ~both[1]).nonzero().flatten().tolist()
        assert mask.visible[0].tolist() == (~both[0]).nonzero().flatten().tolist()
        counts.add((mask.visible.shape[1], mask.hidden.shape[1]))
    assert counts == {(8 * 20, 8 * 176 // 2)}


def test_mask_from_hidden_by_hand():
    mask = Mask.from_hidden(torch.tensor([[True, False, True, False], [False, False, True, True]]))
    assert mask.visible.tolist() == [[1, 3], [0, 1]]
    assert mask.hidden.tolist() == [[0, 2], [2, 3]]


def test_errors_name_both_numbers():
    with pytest.raises(ValueError, match="got between 2 and 3"):
        Mask.from_hidden(torch.tensor([[True, False, True, False], [False, False, True, False]]))
    with pytest.raises(ValueError, match="got 0 of 3"):
        Mask.from_hidden(torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"got torch.int64 \[1, 3\]"):
        Mask.from_hidden(torch.ones(1, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\), got 1.5"):
        draw(masking.tube, GRID, 1.5)
    with pytest.raises(ValueError, match="hides 0 of 196"):
        draw(masking.tube, GRID, 0.001)
    with pytest.raises(ValueError, match=r"a ratio of 0.1 hides 0"):
        draw(masking.running_cell, GRID, 0.1)
    with pytest.raises(ValueError, match="do not tile a frame of 3x4 patches"):
        draw(masking.running_cell, ClipGrid(4, 24, 32, 2, 8), 0.5)
    with pytest.raises(ValueError, match=r"there is no cube \(there are: tube, random, frame, causal"):
        masking.mixed(GRID, 0.5, torch.Generator(), {"cube": 1})
    with pytest.raises(ValueError, match="must be probabilities, got"):
        masking.mixed(GRID, 0.5, torch.Generator(), {"tube": 0})
    with pytest.raises(ValueError, match="multiple of 4 time steps, this clip has 2"):
        masking.dual(ClipGrid(4, 32, 32, 2, 8), ratio=0.5, generator=torch.Generator())
