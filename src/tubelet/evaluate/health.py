"""Whether features differ from clip to clip. Measured without labels; features that are all alike have collapsed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-7


class Health(NamedTuple):
    """feature_std  deviation of features of length 1, times sqrt(D): 1 if they point everywhere, 0 if they are alike
    mean_cosine  mean cosine between two clips, in [-1, 1]; near 1 they are alike
    rankme       effective rank of the features, from 1 to min(n, D): the exponential of the entropy of their singular
                 values. Garrido et al., https://arxiv.org/abs/2210.02885. Compare it at an equal number of clips only.
    """

    feature_std: float
    mean_cosine: float
    rankme: float


def health(features: Tensor) -> Health:
    """float [n,D], one row per clip. Raises ValueError unless there are at least two clips."""
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"the health of features needs at least 2 clips [n,D], got {list(features.shape)}")
    features = features.double()
    n, width = features.shape
    units = F.normalize(features, dim=1)
    deviation = units.std(0, unbiased=False).square().mean().sqrt() * width**0.5
    # the sum over all pairs is the squared length of the sum; n of them are a clip with itself
    cosine = (units.sum(0).square().sum() - units.square().sum()) / (n * (n - 1))
    values = torch.linalg.svdvals(features)
    shares = values / values.sum().clamp_min(EPS) + EPS
    return Health(deviation.item(), cosine.item(), torch.exp(-(shares * shares.log()).sum()).item())
