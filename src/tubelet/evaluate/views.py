"""Multi-view testing as in the papers: from the logits of many views to the accuracy of a test.

Each video has clips x crops views; their probabilities are averaged. Each accuracy has an interval that contains 95% of
the bootstrap resamplings of the test videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from tubelet import storage
from tubelet.data.manifest import COLUMNS, Record
from tubelet.data.randomness import generator

_RESAMPLINGS = 10_000


def mean_of_views(scores: Tensor, views: int) -> Tensor:
    """[videos*views,C], the views of one video in consecutive rows -> their means [videos,C]."""
    return scores.unflatten(0, (-1, views)).mean(1)


def in_top(probabilities: Tensor, labels: Tensor, k: int) -> Tensor:
    """bool [n]: whether the true class is among the k most probable classes."""
    return (probabilities.topk(k, dim=1).indices == labels[:, None]).any(1)


def bootstrap_interval(hits: Tensor, seed: int = 0) -> tuple[float, float]:
    """The 2.5% and 97.5% quantiles of the mean of bool [n], over resamplings of its n entries with replacement.

    If a share p of the entries is true, the number of true ones in a resampling is Binomial(n, p). We draw this number
    directly.
    """
    n, share = len(hits), hits.double().mean().cpu()
    draws = torch.full((_RESAMPLINGS,), float(n), dtype=torch.float64)
    means = torch.binomial(draws, share.expand_as(draws).contiguous(), generator=generator(seed, "bootstrap")) / n
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def recall(confusion: Tensor) -> Tensor:
    """Counts [true,guessed] -> the recall of each class [C]: the share of its videos that was recognised. NaN for a
    class without videos.
    """
    return confusion.diagonal().float() / confusion.sum(1).float()


def figures(probabilities: Tensor, labels: Tensor, seed: int = 0) -> dict[str, float]:
    """top1 and, with more than five classes, top5, each with its interval; and mean_class, the mean recall of the
    classes.
    """
    named = {"top1": 1} | ({"top5": 5} if probabilities.shape[1] > 5 else {})
    found: dict[str, float] = {}
    for name, k in named.items():
        hits = in_top(probabilities, labels, k)
        found[name] = float(hits.double().mean())
        found[f"{name}_low"], found[f"{name}_high"] = bootstrap_interval(hits, seed)
    hits = in_top(probabilities, labels, 1)
    found["mean_class"] = sum(float(hits[labels == c].double().mean()) for c in labels.unique()) / len(labels.unique())
    return found


def write_predictions(path: Path, videos: Sequence[Record], scores: Tensor, views: int, column: str = "label") -> None:
    """Write a Parquet file with one row per video: video, its label (or null), scores [n,C], views. Atomic.

    column: which of the labels was learned, "label", "labels" or "values". The scores of `values` are in a column
    `predicted`, those of the others in `probabilities`.
    """
    flat = pa.array(scores.float().cpu().flatten().numpy())
    table = pa.table(
        {
            "video": pa.array([video.path for video in videos], pa.string()),
            column: pa.array([getattr(video, column) for video in videos], COLUMNS[column]),
            "predicted" if column == "values" else "probabilities": pa.FixedSizeListArray.from_arrays(
                flat, scores.shape[1]
            ),
            "views": pa.array([views] * len(videos), pa.int32()),
        }
    )
    with storage.replacing(path) as temporary:
        pq.write_table(table, temporary)
