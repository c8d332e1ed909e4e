"""Exact counts, uniformity, determinism, and what each masking looks like."""

import pytest
import torch

from tubelet import masking
from tubelet.clip import ClipGrid
from tubelet.masking import Mask

GRID = ClipGrid(16, 224, 224, 2, 16)  # 8 x 14 x 14
SMALL = ClipGrid(8, 32, 48, 2, 8)  # 4 x 4 x 6
GENERATORS = [masking.tube, masking.random, masking.frame, masking.multiblock, masking.running_cell]


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


@pytest.mark.parametrize("kind", [masking.tube, masking.random, masking.frame, masking.running_cell])
def test_every_token_is_hidden_equally_often(kind):
    draws = 2000
    share = sum(draw(kind, SMALL, 0.5, seed).double() for seed in range(draws)) / draws
    # five standard deviations of a share of one half
    assert (share - 0.5).abs().max() < 5 * (0.25 / draws) ** 0.5


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
    with pytest.raises(ValueError, match="multiple of 4 time steps, this clip has 2"):
        masking.dual(ClipGrid(4, 32, 32, 2, 8), ratio=0.5, generator=torch.Generator())
