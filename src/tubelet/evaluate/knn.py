"""k-nearest-neighbour classification on frozen features: it measures an encoder without training anything on labels.

The weighted vote of Wu et al., https://arxiv.org/abs/1805.01978, with DINO's k = 20 and temperature 0.07
(https://arxiv.org/abs/2104.14294).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tubelet.encoders.base import Encoder
from tubelet.layers.pool import mean_token

_CHUNK = 1024  # queries compared with the whole bank at a time


def pooled_features(encoder: Encoder, clip: Tensor) -> Tensor:
    """Normalised clips [B,C,T,H,W], without a mask -> float32 [B,D], the mean of the tokens without class tokens."""
    tokens = encoder(clip)
    assert isinstance(tokens, Tensor)
    return mean_token(tokens.float(), encoder.num_prefix_tokens)


def comparable(bank: Tensor, queries: Tensor, standardise: bool = True) -> tuple[Tensor, Tensor]:
    """Both as unit vectors, so that their products are cosines: bank [n,D], queries [m,D].

    `standardise` first scales every dimension to mean 0 and deviation 1 over the bank (DINO does not). The mean tokens
    of a masked autoencoder share one large component, which would hide their differences from the cosine.
    """
    if standardise:
        mean, deviation = bank.mean(0), bank.std(0, correction=0).clamp(min=1e-6)
        bank, queries = (bank - mean) / deviation, (queries - mean) / deviation
    return F.normalize(bank, dim=1), F.normalize(queries, dim=1)


def knn_scores(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    standardise: bool = True,
) -> Tensor:
    """The share of votes for each class, [m,num_classes]. The k nearest neighbours of a query vote, each with the
    weight exp(cosine / temperature).

    bank [n,D], labels int64 [n], queries [m,D]. If the bank has fewer than k entries, all of them vote. `standardise`
    as in `comparable`.
    """
    if len(bank) == 0 or len(bank) != len(labels):
        raise ValueError(f"a bank of {len(bank)} features and {len(labels)} labels cannot vote")
    bank, queries = comparable(bank, queries, standardise)
    one_hot = F.one_hot(labels, num_classes).to(bank.dtype)  # [n,classes]
    scores = []
    for chunk in queries.split(_CHUNK):  # in chunks, so that the table of similarities stays small
        cosine, nearest = (chunk @ bank.T).topk(min(k, len(bank)), dim=1)  # both [m,k]
        # the softmax divides the weights exp(cosine / temperature) by their sum, which makes them shares
        votes = (cosine / temperature).softmax(dim=1)
        scores.append((votes[..., None] * one_hot[nearest]).sum(1))
    return torch.cat(scores) if scores else bank.new_zeros(0, num_classes)
