"""A video classifier: encoder, pool and head. With one class it is a regression."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.data.transforms import Preprocess
from tubelet.encoders.base import Encoder
from tubelet.layers.pool import AttentivePool, mean_token
from tubelet.models.base import VideoModel


class VideoClassifier(VideoModel):
    """logits = head(dropout(fc_norm(pool(encoder(clip))))).

    Args:
        encoder: any encoder. VideoMAE builds it with `final_norm=False`, pools by the mean and normalises after it; the
            published ViViT and TimeSformer read the class token of an encoder that ends with a norm.
        num_classes: number of classes; 1 is a regression.
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
        preprocess: how pixels are prepared for the encoder's weights.
    """

    def __init__(
        self,
        encoder: Encoder,
        num_classes: int,
        pool: Literal["auto", "mean", "cls", "attentive"] = "mean",
        pool_heads: int = 12,
        pool_depth: int = 1,
        norm_after_pool: bool = False,
        fc_norm: bool | None = None,
        fc_norm_eps: float = 1e-6,
        head_dropout: float = 0.0,
        id2label: dict[int, str] | None = None,
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

    def forward(self, clip: Tensor) -> Tensor:
        """float [B,C,T,H,W], normalised as `preprocess` says -> logits [B,num_classes]."""
        return self.head(self.dropout(self.features(clip)))

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
        """Cross-entropy with class numbers [B] or mixed labels [B,num_classes]; mean squared error for one class.

        class_weight: weight of each class, [num_classes].
        """
        # the loss is computed in float32 at least, also under bf16
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.num_classes == 1:
            return F.mse_loss(logits.flatten(), label.flatten().to(logits.dtype))
        if label.is_floating_point():
            label = label.to(logits.dtype)
        if class_weight is not None:
            class_weight = class_weight.to(logits.dtype)
        # torch's own mean divides by the sum of the batch's weights, so means of several batches would not add up to
        # the mean over all ranks and accumulated batches
        each = F.cross_entropy(logits, label, class_weight, reduction="none", label_smoothing=label_smoothing)
        return each.mean()
