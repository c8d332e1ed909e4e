import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tubelet.evaluate import linear
from tubelet.evaluate.linear import linear_scores


def ridge(bank: Tensor, labels: Tensor, queries: Tensor, classes: int, penalty: float) -> Tensor:
    """By the normal equations, with a column of ones that is not penalised."""
    x = F.pad(bank, (0, 1), value=1.0)
    damping = penalty * torch.eye(x.shape[1], dtype=x.dtype)
    damping[-1, -1] = 0
    return F.pad(queries, (0, 1), value=1.0) @ torch.linalg.solve(
        x.T @ x + damping, x.T @ F.one_hot(labels, classes).double()
    )


def unevenly_scaled(rows: int, width: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (rows,), generator=random)
    features = torch.randn(rows, width, generator=random) + 0.7 * F.one_hot(labels, width)
    return features * torch.logspace(-2, 2, width) + 5, labels


@pytest.mark.parametrize("width", [4, 40])  # fewer and more than the 30 rows
def test_it_is_ridge_regression_with_the_penalty_that_leaving_one_out_prefers(width: int) -> None:
    features, labels = unevenly_scaled(50, width)
    bank, queries = features[:30], features[30:]
    x = ((bank - bank.mean(0)) / bank.std(0, correction=0)).double()
    right = []
    for penalty in linear.PENALTIES:
        left_out = [np.delete(np.arange(30), i) for i in range(30)]
        guesses = [ridge(x[a], labels[a], x[i : i + 1], 3, 30 * penalty).argmax(1) for i, a in enumerate(left_out)]
        right.append(int((torch.cat(guesses) == labels[:30]).sum()))
    best = max(zip(right, linear.PENALTIES, strict=True))[1]
    expected = ridge(x, labels[:30], ((queries - bank.mean(0)) / bank.std(0, correction=0)).double(), 3, 30 * best)
    assert torch.allclose(linear_scores(bank, labels[:30], queries, 3), expected, atol=1e-5)


def test_what_a_line_separates_is_found_and_dead_dimensions_do_no_harm() -> None:
    bank = torch.tensor([[0.0, 7.0], [1.0, 7.0], [10.0, 7.0], [11.0, 7.0]])
    labels = torch.tensor([0, 0, 2, 2])  # nobody has class 1
    assert linear_scores(bank, labels, torch.tensor([[-5.0, 7.0], [20.0, 7.0]]), 3).argmax(1).tolist() == [0, 2]
    assert linear_scores(bank, labels, bank[:0], 3).shape == (0, 3)
    assert linear_scores(bank[:1], labels[:1], bank, 3).argmax(1).tolist() == [0] * 4
    with pytest.raises(ValueError, match="a bank of 0 features and 0 labels"):
        linear_scores(bank[:0], labels[:0], bank, 3)
