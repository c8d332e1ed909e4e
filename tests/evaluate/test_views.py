import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tubelet.data.manifest import Record
from tubelet.evaluate.gather import gather_rows
from tubelet.evaluate.views import bootstrap_interval, figures, in_top, mean_of_views, recall, write_predictions


def test_views_are_averaged_as_probabilities() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [math.log(9), 0.0], [0.0, 0.0], [0.0, 0.0]])  # two videos, two views
    expected = torch.tensor([[(1 / 4 + 9 / 10) / 2, (3 / 4 + 1 / 10) / 2], [0.5, 0.5]])
    assert torch.allclose(mean_of_views(logits.softmax(1), 2), expected)


def test_figures_by_hand() -> None:
    probabilities = torch.eye(6)[[0, 1, 2, 2, 5]] + torch.linspace(0.0, 0.1, 6)
    labels = torch.tensor([0, 1, 2, 1, 0])  # right, right, right, wrong, wrong
    found = figures(probabilities, labels)
    assert found["top1"] == pytest.approx(3 / 5)
    assert found["mean_class"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    # the class left out of the top five is the least probable one: 0, where it is not the guess
    assert found["top5"] == pytest.approx(4 / 5)
    assert in_top(probabilities, labels, 1).tolist() == [True, True, True, False, False]
    assert found["top1_low"] < 3 / 5 < found["top1_high"]


def test_the_interval_is_the_binomial_one() -> None:
    hits = torch.arange(400) < 300
    low, high = bootstrap_interval(hits)
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)  # normal approximation
    assert low == pytest.approx(0.75 - half, abs=0.005)
    assert high == pytest.approx(0.75 + half, abs=0.005)
    assert bootstrap_interval(hits) == (low, high)
    assert bootstrap_interval(torch.ones(5, dtype=torch.bool)) == (1.0, 1.0)


def test_recall_of_a_class_without_videos_is_unknown() -> None:
    shares = recall(torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
    assert shares[:2].tolist() == [0.75, 1.0]
    assert shares[2].isnan()


class TwoRanks:
    """What rank 0 sees of Lightning's strategy, the other rank holding `others`."""

    def __init__(self, others: torch.Tensor) -> None:
        self.others = others

    def all_gather(self, mine: torch.Tensor) -> torch.Tensor:
        if mine.ndim == 0:
            return torch.stack([mine, torch.tensor(len(self.others))])
        theirs = mine.new_zeros(mine.shape)
        theirs[: len(self.others)] = self.others
        return torch.stack([mine, theirs])


@pytest.mark.parametrize("others", [0, 2, 5])
def test_rows_of_ranks_with_unequal_numbers(others: int) -> None:
    g = torch.Generator().manual_seed(0)
    mine, theirs = torch.randn(3, 4, generator=g), torch.randn(others, 4, generator=g)
    assert torch.equal(gather_rows(mine, TwoRanks(theirs)), torch.cat([mine, theirs]))


def test_predictions_file(tmp_path: Path) -> None:
    write_predictions(
        tmp_path / "p.parquet", [Record("a.mp4", 1), Record("b.mp4")], torch.tensor([[0.25, 0.75], [1.0, 0.0]]), 6
    )
    assert pq.read_table(tmp_path / "p.parquet").to_pylist() == [
        {"video": "a.mp4", "label": 1, "probabilities": [0.25, 0.75], "views": 6},
        {"video": "b.mp4", "label": None, "probabilities": [1.0, 0.0], "views": 6},
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["p.parquet"]
