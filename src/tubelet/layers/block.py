"""The pre-norm transformer block that encoders and decoders are made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.layers.attention import Attention, Bias
from tubelet.layers.frugal import Again, linear_after

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_fast": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "selu": F.selu,
    "tanh": torch.tanh,
}


class Mlp(nn.Module):
    """[B,K,D] -> [B,K,D] through `hidden` channels."""

    def __init__(
        self, dim: int, hidden: int, act: str = "gelu", dropout: float = 0.0, hidden_dropout: float = 0.0
    ) -> None:
        super().__init__()
        if act not in ACTIVATIONS:
            raise ValueError(f"unknown activation '{act}', expected one of {', '.join(ACTIVATIONS)}")
        self.fc1 = nn.Linear(dim, hidden)
        self.act = act
        self.fc2 = nn.Linear(hidden, dim)
        self.hidden_dropout = nn.Dropout(hidden_dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, norm: nn.Module | None = None, again: Again | None = None) -> Tensor:
        """With `norm` it is mlp(norm(x)), and keeps neither the norm's output nor the activation's for the backward
        pass, nor x if it knows how to compute it `again` (tubelet.layers.frugal).
        """
        act, drops = ACTIVATIONS[self.act], self.training and self.hidden_dropout.p > 0
        if norm is None or drops:
            hidden = self.fc1(x if norm is None else norm(x))
            return self.dropout(self.fc2(self.hidden_dropout(act(hidden))))
        return self.dropout(linear_after(act, linear_after(norm, x, self.fc1, again=again), self.fc2))


class DropPath(nn.Module):
    """Stochastic depth (https://arxiv.org/abs/1603.09382), as in timm: in training it sets the branch x of each clip to
    zero with probability `rate`, and scales the others up by 1 / (1 - rate).

    The rate is also kept as a tensor. So one compiled graph serves all blocks, though each block has another rate.
    """

    keep: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.drops = rate > 0  # torch compiles a graph per Python value that `forward` reads: a bool has two
        self.register_buffer("keep", torch.tensor(1.0 - rate), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.drops or not self.training:
            return x
        # one draw per clip: the whole branch of a clip is kept or dropped
        kept = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(self.keep)  # [B,1,...]
        return x * (kept / self.keep.to(x.dtype))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). Branches can be scaled (layer scale) and dropped (drop path)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        bias: Bias = "qkv",
        act: str = "gelu",
        eps: float = 1e-6,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float = 0.0,
        cosine_attention: bool = False,
        mlp_hidden_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads, bias, attention_dropout, dropout, cosine_attention)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, round(dim * mlp_ratio), act, dropout, mlp_hidden_dropout)
        self.drop_path = DropPath(drop_path)
        # the published checkpoints have these names
        self.gamma_1 = nn.Parameter(torch.full((dim,), layer_scale)) if layer_scale > 0 else None
        self.gamma_2 = nn.Parameter(torch.full((dim,), layer_scale)) if layer_scale > 0 else None

    def forward(self, x: Tensor, return_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        branch, weights = self.attn(self.norm1(x), return_attention)
        x = x + self.drop_path(branch if self.gamma_1 is None else self.gamma_1 * branch)
        branch = self.mlp(self.norm2(x))
        x = x + self.drop_path(branch if self.gamma_2 is None else self.gamma_2 * branch)
        return x, weights


def init_normal(module: nn.Module, std: float) -> None:
    """Linear layers from a truncated normal distribution, zero bias, identity norms (ViT's initialisation)."""
    for part in module.modules():
        init_weights(part)
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=std)


def init_weights(module: nn.Module) -> None:
    """For `Module.apply`: Xavier linear layers with zero bias, identity norms (VideoMAE's initialisation)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
