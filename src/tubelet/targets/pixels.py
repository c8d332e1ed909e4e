"""VideoMAE's target: the pixels of the hidden tubelets, raw or normalised by the mean and deviation of each patch.

Tong et al., https://arxiv.org/abs/2203.12602; normalising: He et al., https://arxiv.org/abs/2111.06377. Only the hidden
tubelets are cut out; the original cuts all of them and drops most.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tubelet.data.transforms import Preprocess
from tubelet.encoders.base import Encoder
from tubelet.layers.patch import cut, take
from tubelet.masking import Mask
from tubelet.targets.base import Target

EPS = 1e-6


class Pixels(Target):
    """[B,M,P], ordered (p0 p1 p2 c): P = tubelet * patch * patch * C.

    Args:
        normalise: scale each patch and channel to mean 0 and deviation 1 (unbiased, + 1e-6); else raw pixels in [0, 1].
    """

    def __init__(self, encoder: Encoder, preprocess: Preprocess, normalise: bool = True) -> None:
        super().__init__()
        self.grid, self.channels, self.preprocess = encoder.grid, encoder.in_channels, preprocess
        self.normalise = normalise
        self.dim = encoder.grid.patch_numel(encoder.in_channels)

    @torch.no_grad()
    def forward(self, clip: Tensor, mask: Mask) -> Tensor:
        """float32 [B,M,P]; float64 if the clip is float64."""
        if not self.normalise:
            return self.hidden_pixels(clip, mask).flatten(2)
        # What `denormalise` adds cancels in the difference, and what it multiplies by in the ratio. So it is left out,
        # and only EPS has to know the factor.
        x = self._hidden(clip, mask)  # [B,M,C,p]
        x -= x.mean(3, keepdim=True)
        deviation = torch.linalg.vector_norm(x, dim=3, keepdim=True) / (x.shape[3] - 1) ** 0.5  # unbiased
        x /= deviation + EPS / self.preprocess.contrast(x, channel_dim=2)
        return x.transpose(2, 3).flatten(2)

    def hidden_pixels(self, clip: Tensor, mask: Mask) -> Tensor:
        """The hidden tubelets in [0, 1], [B,M,p,C], p = tubelet * patch * patch; float32, or float64 as the clip."""
        return self.preprocess.denormalise(self._hidden(clip, mask), channel_dim=2).transpose(2, 3)

    def _hidden(self, clip: Tensor, mask: Mask) -> Tensor:
        """A copy of the hidden tubelets, normalised as the clip, [B,M,C,p]."""
        tubelets = take(cut(clip, self.grid), mask.hidden)  # [B,M,C,p0,p1,p2]
        # at least float32, whatever the type of the clip: mean and deviation of a patch need it
        return tubelets.to(torch.promote_types(clip.dtype, torch.float32)).flatten(3)

    def baselines(self, truth: Tensor) -> dict[str, Tensor]:
        """`patch_mean_loss`: the loss of predicting the true mean colour of every hidden patch, and nothing else. An
        encoder that has learned anything about shape and motion reaches a lower loss.
        """
        pixels = truth.unflatten(2, (-1, self.channels))  # [B,M,p,C]
        return {"patch_mean_loss": torch.mean((pixels - pixels.mean(2, keepdim=True)) ** 2)}

    def to_pixels(self, prediction: Tensor, clip: Tensor, mask: Mask) -> Tensor:
        """Normalised predictions get the mean and deviation of the true patches, which the model does not predict."""
        if not self.normalise:
            return prediction
        truth = self.hidden_pixels(clip, mask)  # [B,M,p,C]
        patches = prediction.unflatten(2, truth.shape[2:])
        return (patches * (truth.std(2, keepdim=True) + EPS) + truth.mean(2, keepdim=True)).flatten(2)

    @property
    def caption(self) -> str:
        borrowed = " (each patch with its true mean and contrast)" if self.normalise else ""
        return f"reconstructed{borrowed}"
