"""A linear classifier on frozen features, solved in closed form: what a linear probe finds, without training steps.

Ridge regression onto the classes (Hoerl and Kennard, 1970). The penalty is the one at which the most rows of the bank
are classified rightly by a classifier that was fitted without them. For ridge regression, leaving out each row in turn
needs no further fit: Golub, Heath and Wahba, https://doi.org/10.1080/00401706.1979.10489751.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # per row; the standardised features have a mean square of 1


def linear_scores(bank: Tensor, labels: Tensor, queries: Tensor, num_classes: int) -> Tensor:
    """The score of each class, float64 [m,num_classes] on the CPU; the largest is the guess.

    bank [n,D], labels int64 [n], queries [m,D]. Every dimension is first scaled to mean 0 and deviation 1 over the
    bank. There is nothing random in it, and equal arguments give equal bits. Raises ValueError for an empty bank.
    """
    if len(bank) == 0 or len(bank) != len(labels):
        raise ValueError(f"a bank of {len(bank)} features and {len(labels)} labels teaches nothing")
    bank, queries, labels = bank.double().cpu(), queries.double().cpu(), labels.cpu()
    mean, deviation = bank.mean(0), bank.std(0, correction=0).clamp(min=1e-6)
    x, queries = (bank - mean) / deviation, (queries - mean) / deviation
    one_hot = F.one_hot(labels, num_classes).double()
    y = one_hot - one_hot.mean(0)  # [n,classes]
    u, s, v = torch.linalg.svd(x, full_matrices=False)  # x = u s v
    projected = u.T @ y
    best, right = PENALTIES[-1], -1
    for penalty in reversed(PENALTIES):  # of equally good ones the strongest
        kept = s.square() / (s.square() + penalty * len(x))
        fitted = u @ (kept[:, None] * projected)  # [n,classes]
        # the share that each row has in its own fit, 1/n of it through the mean
        own = (u.square() @ kept + 1 / len(x)).clamp(max=1 - 1e-9)[:, None]
        without = y - (y - fitted) / (1 - own)
        found = int(((without + one_hot.mean(0)).argmax(1) == labels).sum())
        if found > right:
            best, right = penalty, found
    weight = v.T @ ((s / (s.square() + best * len(x)))[:, None] * projected)  # [D,classes]
    return queries @ weight + one_hot.mean(0)
