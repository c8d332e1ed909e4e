"""CrossMAE's decoder: mask tokens look at the encoder's tokens and never at each other, so any share can be predicted.

Fu et al., "Rethinking Patch Dependence for Masked Autoencoders", https://arxiv.org/abs/2401.14391. Its cost grows with
the number of predicted tokens times the number of visible ones; that of self-attention with the square of their sum.

Where we differ: the paper predicts a share of all tokens, here `predict` is a share of the hidden ones; an evaluation
predicts all of them, so that its loss compares. A key also gets the position of its token, as in the self-attention
decoder: without it, the demo learns several times more slowly (docs/learning.md). The paper multiplies the learning
rate by that share (appendix A.6); here the learning rate is only ever what the config says. With `maps`, the encoder's
last norm stays in use: its output is one of the maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.decoders.base import Decoder
from tubelet.encoders.base import Encoder
from tubelet.layers.attention import attend
from tubelet.layers.block import Mlp, init_weights
from tubelet.layers.position import fixed_positions, take_positions
from tubelet.masking import Mask


class CrossBlock(nn.Module):
    """x + attention(queries of norm(x), keys and values of y), then x + mlp(norm(x)): [B,M,E], [B,V,D] -> [B,M,E].

    places: [B,V,2E], added to keys and values. y is not normalised here: it comes out of a norm.
    """

    def __init__(self, dim: int, source_dim: int, num_heads: int, mlp_ratio: float, act: str, eps: float) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"decoder width {dim} is not divisible by num_heads {num_heads}")
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(source_dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, round(dim * mlp_ratio), act)

    def forward(self, x: Tensor, y: Tensor, places: Tensor) -> Tensor:
        kv = self.kv(y)
        kv = (kv + places).to(kv.dtype)  # places are float32, also under autocast
        x = x + self.proj(attend(self.q(self.norm1(x)), kv, self.num_heads))
        return x + self.mlp(self.norm2(x))


class Mix(nn.Linear):
    """Its weight [depth,states] is read row by row. A class of its own, because quantising replaces plain linear layers
    by others that have no such table.
    """


class CrossAttentionDecoder(Decoder):
    """Args:
    encoder: whose tokens it looks at.
    target_dim: numbers to predict for each token, P.
    predict: share of the hidden tokens, in (0, 1], that a training step predicts; drawn for every clip and step.
    maps: each block looks at its own learned weighted sum of the encoder's blocks, instead of the last output alone.
    dim, num_heads: width and heads; None: half the encoder's width, heads 64 wide.
    depth, mlp_ratio: number of blocks, and the hidden width of each / its width.
    position: its fixed table of positions, over flattened tokens ("sincos") or with axes apart.
    act, eps: of its blocks.
    """

    positions: Tensor

    def __init__(
        self,
        encoder: Encoder,
        target_dim: int,
        predict: float = 0.25,
        maps: bool = False,
        dim: int | None = None,
        depth: int = 4,
        num_heads: int | None = None,
        mlp_ratio: float = 4.0,
        position: Literal["sincos", "sincos_3d"] = "sincos",
        act: str = "gelu",
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if not 0.0 < predict <= 1.0:
            raise ValueError(f"decoder.predict must lie in (0, 1], got {predict}")
        if maps and not encoder.uniform_states:
            raise ValueError(
                f"decoder.maps needs hidden states [B,prefix+V,D], which {type(encoder).__name__} does not give: "
                "set decoder.maps=false"
            )
        dim = dim or encoder.dim // 2
        self.share, self.reads_states, self.grid = predict, maps, encoder.grid
        self.num_heads = num_heads or max(dim // 64, 1)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        grid = encoder.grid
        self.register_buffer("positions", fixed_positions(position, (grid.t, grid.h, grid.w), dim))
        self.blocks = nn.ModuleList(
            CrossBlock(dim, encoder.dim, self.num_heads, mlp_ratio, act, eps) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.head = nn.Linear(dim, target_dim)
        states = len(encoder.layers())  # the first block's input, each block's output, the last norm's
        self.mix = Mix(states, depth, bias=False) if maps else None
        self.map_norms = nn.ModuleList(nn.LayerNorm(encoder.dim, eps=eps) for _ in range(depth)) if maps else None
        self.apply(init_weights)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def layers(self) -> Sequence[nn.Module]:
        return [nn.Identity(), *self.blocks, self.head]

    def choose(self, mask: Mask) -> Mask:
        if not self.training or self.share == 1.0:
            return mask
        hidden = mask.hidden
        count = max(1, int(self.share * hidden.shape[1]))
        chosen = torch.rand(hidden.shape, device=hidden.device).topk(count, dim=1).indices.sort(dim=1).values
        return Mask(mask.visible, hidden.gather(1, chosen))

    def check_masking(self, masking: Callable[..., Tensor]) -> None:
        hidden = masking(self.grid, generator=torch.Generator().manual_seed(0))
        if self.share < 1.0 and hidden.ndim == 2:
            raise ValueError(
                f"dual masking already chooses the tokens to predict, and decoder.predict {self.share} would choose "
                "among them once more: set decoder.predict=1 or take another masking"
            )

    def forward(self, tokens: Tensor, mask: Mask, states: Sequence[Tensor] = ()) -> Tensor:
        x = self.mask_token + take_positions(self.positions, mask.hidden)  # [B,M,E]
        places = take_positions(self.positions, mask.visible)  # [B,V,E]
        # zeros for the class token, and for the values
        places = F.pad(places, (0, places.shape[2], tokens.shape[1] - places.shape[1], 0))  # [B,prefix+V,2E]
        for number, block in enumerate(self.blocks):
            x = block(x, self._source(number, tokens, states), places)
        return self.head(self.norm(x))  # [B,M,P]

    def _source(self, number: int, tokens: Tensor, states: Sequence[Tensor]) -> Tensor:
        """What a block looks at, [B,prefix+V,D]."""
        if self.mix is None or self.map_norms is None:
            return tokens
        weights = self.mix.weight[number]  # [states]
        mixed = torch.stack([weight * state for weight, state in zip(weights, [*states, tokens], strict=True)]).sum(0)
        return self.map_norms[number](mixed)
