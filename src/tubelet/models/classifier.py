"""A video classifier: encoder, pool and head. The head tells one class, several classes, or numbers (a regression)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.data.labels import Labels, problem_of
from tubelet.data.manifest import ONE_CLASS, Problem
from tubelet.data.transforms import Preprocess
from tubelet.encoders.base import Encoder
from tubelet.layers.pool import AttentivePool, mean_token
from tubelet.models.base import VideoModel
from tubelet.nodes import Node


class VideoClassifier(VideoModel):
    """logits = head(dropout(fc_norm(pool(encoder(clip))))).

    `scores` makes probabilities of them.

    Args:
        encoder: any encoder. VideoMAE builds it with `final_norm=False`, pools by the mean and normalises after it; the
            published ViViT and TimeSformer read the class token of an encoder that ends with a norm.
        num_classes: number of classes, or of the numbers of a regression.
        problem_type: as in Hugging Face's configs: "single_label_classification", "multi_label_classification" or
            "regression"; None: a regression with one class, else a single label.
        pool: "mean": the mean of the tokens without the class token; "cls": the first token, which is the class token
            where there is one; "attentive": one learned query (V-JEPA's probe, https://arxiv.org/abs/2404.08471);
            "auto": the class token where there is one, else the mean.
        norm_after_pool: with mean pooling, remove the encoder's last norm and add a new LayerNorm after the pool, as
            VideoMAE does.
        pool_heads, pool_depth: number of attention heads and of blocks of the attentive pool.
        fc_norm: a LayerNorm between pool and head; None: only if `pool` is "mean" and the encoder ends without a norm.
        fc_norm_eps: eps of that LayerNorm.
        head_dropout: dropout rate before the head.
        id2label: names of the classes by number.
        value_mean, value_std: mean and deviation of each number that a regression learned, so that the head learns
            numbers of mean 0 and deviation 1, whatever their units; None: 0 and 1.
        preprocess: how pixels are prepared for the encoder's weights.
    """

    value_mean: Tensor | None
    value_std: Tensor | None

    def __init__(
        self,
        encoder: Encoder,
        num_classes: int,
        problem_type: Problem | None = None,
        pool: Literal["auto", "mean", "cls", "attentive"] = "mean",
        pool_heads: int = 12,
        pool_depth: int = 1,
        norm_after_pool: bool = False,
        fc_norm: bool | None = None,
        fc_norm_eps: float = 1e-6,
        head_dropout: float = 0.0,
        id2label: dict[int, str] | None = None,
        value_mean: Sequence[float] | None = None,
        value_std: Sequence[float] | None = None,
        preprocess: Preprocess | None = None,
    ) -> None:
        super().__init__(encoder, preprocess)
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        if pool == "auto":
            pool = "cls" if encoder.num_prefix_tokens else "mean"
        if pool not in ("mean", "cls", "attentive"):
            raise ValueError(f"unknown pool '{pool}', expected auto, mean, cls or attentive")
        if id2label is not None and sorted(int(i) for i in id2label) != list(range(num_classes)):
            raise ValueError(f"id2label must name the classes 0 to {num_classes - 1}, got {len(id2label)} names")
        if norm_after_pool and pool == "mean":  # changes the given encoder, so that its config file fits all methods
            encoder.norm = nn.Identity()
        self.num_classes = num_classes
        self.labels = Labels(problem_of(problem_type, num_classes), num_classes)
        self.set_units(value_mean, value_std)
        self.pool = pool
        self.attentive_pool = AttentivePool(encoder.dim, pool_heads, pool_depth) if pool == "attentive" else None
        if fc_norm is None:
            fc_norm = pool == "mean" and isinstance(encoder.norm, nn.Identity)
        self.fc_norm = nn.LayerNorm(encoder.dim, eps=fc_norm_eps) if fc_norm else nn.Identity()
        self.dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(encoder.dim, num_classes)
        self.id2label = None if id2label is None else {int(i): label for i, label in id2label.items()}
        nn.init.trunc_normal_(self.head.weight, std=0.02 * 0.001)  # VideoMAE's init_scale
        nn.init.zeros_(self.head.bias)

    def settings(self) -> Node:
        """With the names of the classes, the problem and the units that it has now."""
        units = {"value_mean": self.value_mean, "value_std": self.value_std}
        return super().settings() | {
            "problem_type": self.problem,
            "fc_norm": isinstance(self.fc_norm, nn.LayerNorm),
            "id2label": self.id2label,
            **{name: None if value is None else value.tolist() for name, value in units.items()},
        }

    def set_units(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        """Mean and deviation of each number of a regression; None: 0 and 1. Raises ValueError if it is none, or if they
        are not one for each number.
        """
        if (mean is None) != (std is None):
            raise ValueError("value_mean and value_std belong together: give both or neither")
        if mean is not None and self.problem != "regression":
            raise ValueError(f"value_mean and value_std are of a regression, this is a {self.problem}")
        if any(len(values or []) not in (0, self.num_classes) for values in (mean, std)) or any(
            s <= 0 for s in std or []
        ):
            raise ValueError(f"value_mean and value_std must be {self.num_classes} numbers, and deviations positive")
        # settings and not weights, as those of the preprocessing: they are not in the state dict
        self.register_buffer("value_mean", None if mean is None else torch.tensor(mean), persistent=False)
        self.register_buffer("value_std", None if std is None else torch.tensor(std), persistent=False)

    @property
    def problem(self) -> Problem:
        """What it tells of a video, under the name of Hugging Face's `problem_type`."""
        return self.labels.problem

    def forward(self, clip: Tensor) -> Tensor:
        """float [B,C,T,H,W], normalised as `preprocess` says -> logits [B,num_classes]; of a regression its numbers."""
        return self.in_units(self.head(self.dropout(self.features(clip))))

    def in_units(self, output: Tensor) -> Tensor:
        """The head's output [B,num_classes]; that of a regression in the units of its numbers, float32 at least."""
        if self.value_mean is None or self.value_std is None:
            return output
        return output.to(torch.promote_types(output.dtype, torch.float32)) * self.value_std + self.value_mean

    def scores(self, logits: Tensor) -> Tensor:
        """[B,num_classes] -> float32: probabilities that add up to 1, one probability for each of several labels, or
        the numbers of a regression.
        """
        if self.problem == "regression":
            return logits.float()
        return logits.float().softmax(dim=1) if self.problem == ONE_CLASS else logits.float().sigmoid()

    def features(self, clip: Tensor) -> Tensor:
        """float [B,C,T,H,W] -> the input of the head, [B,D]."""
        return self.fc_norm(self.pool_tokens(self.encoder(clip)))

    def pool_tokens(self, tokens: Tensor) -> Tensor:
        """[B,prefix+N,D] -> [B,D]."""
        if self.attentive_pool is not None:
            return self.attentive_pool(tokens)
        return tokens[:, 0] if self.pool == "cls" else mean_token(tokens, self.encoder.num_prefix_tokens)

    def loss(
        self, logits: Tensor, label: Tensor, label_smoothing: float = 0.0, class_weight: Tensor | None = None
    ) -> Tensor:
        """The mean over the batch of: cross-entropy with class numbers [B] or mixed labels [B,num_classes]; binary
        cross-entropy of each class with labels [B,num_classes] of 0 to 1; squared error, in units of `value_std`.

        label_smoothing: in [0, 1); numbers are not smoothed.
        class_weight: [num_classes]; of each class, or of its positives among several labels.
        """
        # the loss is computed in float32 at least, also under bf16
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.problem == "regression":
            error = logits - label.to(logits.dtype).view_as(logits)
            return (error if self.value_std is None else error / self.value_std).square().mean()
        if label.is_floating_point():
            label = label.to(logits.dtype)
        if class_weight is not None:
            class_weight = class_weight.to(logits.dtype)
        if self.problem == "multi_label_classification":
            smooth = label * (1 - label_smoothing) + label_smoothing / 2
            return F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=class_weight)
        # torch's own mean divides by the sum of the batch's weights, so means of several batches would not add up to
        # the mean over all ranks and accumulated batches
        each = F.cross_entropy(logits, label, class_weight, reduction="none", label_smoothing=label_smoothing)
        return each.mean()
