"""Masked prediction on video: encode the visible tubelets, predict a target for the hidden ones.

Tong et al., VideoMAE, https://arxiv.org/abs/2203.12602. The target (tubelet.targets) is what is predicted; the decoder
(tubelet.decoders) predicts it. Every target and decoder works with every encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from tubelet.data.transforms import Preprocess
from tubelet.decoders.base import Decoder
from tubelet.decoders.self_attention import SelfAttentionDecoder
from tubelet.encoders.base import Encoder
from tubelet.masking import Mask
from tubelet.models.base import VideoModel
from tubelet.targets.base import Target
from tubelet.targets.pixels import Pixels


class MaskedOutput(NamedTuple):
    """loss: scalar. prediction, target [B,M,P]: the predicted and the true values of the hidden tokens."""

    loss: Tensor
    prediction: Tensor
    target: Tensor

    @property
    def pixels(self) -> Tensor:
        """The prediction, where the target is pixels: ordered (p0 p1 p2 c)."""
        return self.prediction


class MaskedModel(VideoModel):
    """Encoder, decoder, target and loss.

    Args:
        encoder: any encoder.
        decoder: `(encoder, target_dim) -> Decoder`; None: VideoMAE's.
        target: `(encoder, preprocess) -> Target`; None: VideoMAE's, normalised pixels.
        preprocess: how the pixels are normalised, so that a target can undo it.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Callable[[Encoder, int], Decoder] | None = None,
        target: Callable[[Encoder, Preprocess], Target] | None = None,
        preprocess: Preprocess | None = None,
    ) -> None:
        super().__init__(encoder, preprocess)
        # the target is built first, because its width is the decoder's output width
        made: Target = (target or Pixels)(encoder, self.preprocess)
        self.decoder: Decoder = (decoder or SelfAttentionDecoder)(encoder, made.dim)
        self.target = made

    def check_masking(self, masking: Callable[..., Tensor]) -> None:
        super().check_masking(masking)
        self.decoder.check_masking(masking)

    def forward(self, clip: Tensor, mask: Mask) -> MaskedOutput:
        """clip float [B,C,T,H,W], normalised as `preprocess` says."""
        mask = self.decoder.choose(mask)  # a decoder may predict only a part of the hidden tokens
        if self.decoder.reads_states:
            visible, states, _ = self.encoder(clip, mask, return_hidden_states=True)
            prediction = self.decoder(visible, mask, states)  # [B,M,P]
        else:
            visible = self.encoder(clip, mask)  # [B,prefix+V,D]
            prediction = self.decoder(visible, mask)  # [B,M,P]
        target = self.target(clip, mask)  # [B,M,P]
        return MaskedOutput(self.target.loss(prediction, target), prediction, target)
