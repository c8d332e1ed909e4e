"""Masked autoencoding of video: predict the pixels of the tubelets that the encoder did not see.

Tong et al., VideoMAE, https://arxiv.org/abs/2203.12602. The decoder is a narrow transformer over all tokens, the hidden
ones replaced by one learned token; the loss is the mean squared error on hidden tubelets alone.

Where we differ: the target is cut from the hidden tubelets only; with dual masking (`Mask.hidden` lists fewer tokens
than are hidden) the decoder sees the visible tokens and those to predict, nothing else.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.clip import ClipGrid
from tubelet.data.transforms import Preprocess
from tubelet.encoders.base import Encoder
from tubelet.layers.attention import Bias
from tubelet.layers.block import Block, init_weights
from tubelet.layers.patch import cut, take
from tubelet.layers.position import fixed_positions, take_positions
from tubelet.masking import Mask


class MAEOutput(NamedTuple):
    """loss: scalar. pixels, target [B,M,P]: prediction and truth of the hidden tubelets, ordered (p0 p1 p2 c)."""

    loss: Tensor
    pixels: Tensor
    target: Tensor


class Decoder(nn.Module):
    """Visible tokens [B,prefix+V,E] and the mask -> predicted pixels [B,M,P] of the hidden ones."""

    def __init__(
        self, encoder: Encoder, blocks: list[Block], dim: int, norm_eps: float, position: Literal["sincos", "sincos_3d"]
    ) -> None:
        super().__init__()
        size = (encoder.grid.t, encoder.grid.h, encoder.grid.w)
        self.register_buffer("positions", fixed_positions(position, size, dim))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.head = nn.Linear(dim, encoder.grid.patch_numel(encoder.in_channels))
        self.apply(init_weights)

    def forward(self, visible: Tensor, mask_token: Tensor, mask: Mask) -> Tensor:
        prefix = visible.shape[1] - mask.visible.shape[1]  # class tokens, which have no position
        x = torch.cat(
            [
                visible[:, :prefix],
                visible[:, prefix:] + take_positions(self.positions, mask.visible),
                mask_token + take_positions(self.positions, mask.hidden),
            ],
            dim=1,
        )  # [B,prefix+V+M,D]
        for block in self.blocks:
            x, _ = block(x)
        return self.head(self.norm(x[:, -mask.hidden.shape[1] :]))  # [B,M,P]


class MaskedAutoencoder(nn.Module):
    """Encoder, decoder, target and loss.

    Args:
        encoder: any encoder of this project.
        decoder_dim, decoder_heads: width and heads of the decoder; None: half the encoder's width, heads 64 wide.
        decoder_depth, decoder_mlp_ratio: blocks of the decoder, and the hidden width of each / its width.
        decoder_position: its fixed table of positions, over flattened tokens (VideoMAE) or with axes apart.
        decoder_bias, act, dropout, attention_dropout, eps, layer_scale, cosine_attention: of the decoder's blocks.
        decoder_norm_eps: of its last LayerNorm; None: `eps`. Hugging Face's models have 1e-5 there.
        norm_pix_loss: predict pixels normalised by their patch's mean and deviation per channel; else raw in [0, 1].
        preprocess: how the pixels were normalised, so that the target can undo it.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder_dim: int | None = None,
        decoder_depth: int = 4,
        decoder_heads: int | None = None,
        decoder_mlp_ratio: float = 4.0,
        decoder_bias: Bias = "qv",
        decoder_position: Literal["sincos", "sincos_3d"] = "sincos",
        norm_pix_loss: bool = True,
        act: str = "gelu",
        eps: float = 1e-6,
        decoder_norm_eps: float | None = None,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        layer_scale: float = 0.0,
        cosine_attention: bool = False,
        preprocess: Preprocess | None = None,
    ) -> None:
        super().__init__()
        dim = decoder_dim or encoder.dim // 2
        heads = decoder_heads or max(dim // 64, 1)
        blocks = [
            Block(
                dim,
                heads,
                decoder_mlp_ratio,
                decoder_bias,
                act,
                eps,
                dropout,
                attention_dropout,
                layer_scale=layer_scale,
                cosine=cosine_attention,
            )
            for _ in range(decoder_depth)
        ]
        self.encoder = encoder
        self.norm_pix_loss = norm_pix_loss
        self.preprocess = preprocess or Preprocess()
        self.encoder_to_decoder = nn.Linear(encoder.dim, dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.decoder = Decoder(
            encoder, blocks, dim, eps if decoder_norm_eps is None else decoder_norm_eps, decoder_position
        )
        nn.init.xavier_uniform_(self.encoder_to_decoder.weight)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    @property
    def grid(self) -> ClipGrid:
        return self.encoder.grid

    def forward(self, clip: Tensor, mask: Mask) -> MAEOutput:
        """clip float [B,C,T,H,W], normalised as `preprocess` says."""
        visible = self.encoder(clip, mask)  # [B,prefix+V,E]
        pixels = self.decoder(self.encoder_to_decoder(visible), self.mask_token, mask)  # [B,M,P]
        target = self.target(clip, mask)
        return MAEOutput(F.mse_loss(pixels.to(target.dtype), target), pixels, target)

    @torch.no_grad()
    def target(self, clip: Tensor, mask: Mask) -> Tensor:
        """What the decoder should say, float32 [B,M,P]; float64 of a float64 clip."""
        hidden = self.hidden_pixels(clip, mask)  # [B,M,p,C]
        return (self.normalise_patches(hidden) if self.norm_pix_loss else hidden).flatten(2)

    def hidden_pixels(self, clip: Tensor, mask: Mask) -> Tensor:
        """The hidden tubelets in [0, 1], [B,M,p,C], p = tubelet * patch * patch; float32, or float64 as the clip."""
        tubelets = take(cut(clip, self.grid), mask.hidden)  # [B,M,C,p0,p1,p2]
        tubelets = tubelets.to(torch.promote_types(clip.dtype, torch.float32))
        return self.preprocess.denormalise(tubelets, channel_dim=2).flatten(3).transpose(2, 3)

    @staticmethod
    def normalise_patches(hidden: Tensor) -> Tensor:
        """[B,M,p,C], each patch and channel to mean 0 and deviation 1 (unbiased, + 1e-6)."""
        return (hidden - hidden.mean(2, keepdim=True)) / (hidden.std(2, keepdim=True) + 1e-6)
