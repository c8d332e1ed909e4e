"""MaskFeat's target: histograms of oriented gradients (HOG). They keep shapes and edges, and drop colour and contrast.

Wei et al., https://arxiv.org/abs/2112.09133; HOG: Dalal and Triggs, CVPR 2005. Like MaskFeat: the first frame of each
tubelet, each colour channel by itself, unsigned directions, hard bins weighted by the gradient's magnitude, no Gaussian
window and no blocks of cells. Where we differ: in MaskFeat mask tokens enter the encoder and a linear layer predicts;
here the encoder sees visible tokens alone, and a decoder predicts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tubelet.data.transforms import Preprocess
from tubelet.encoders.base import Encoder
from tubelet.layers.patch import cut
from tubelet.masking import Mask
from tubelet.targets.base import Target


class HOG(Target):
    """[B,M,P], ordered (row of cells, column of cells, channel, bin): P = (patch / cell)^2 * C * bins. Each histogram
    has length 1, or 0 where nothing changes.

    Args:
        bins: directions in half a turn.
        cell: side of a cell in pixels; it must divide the patch size, else ValueError.
    """

    def __init__(self, encoder: Encoder, preprocess: Preprocess, bins: int = 9, cell: int = 8) -> None:
        super().__init__()
        patch = encoder.grid.patch
        if bins < 2:
            raise ValueError(f"target.bins must be at least 2, got {bins}")
        if cell < 1 or patch % cell:
            raise ValueError(f"target.cell {cell} does not divide encoder.patch_size {patch}")
        self.grid, self.preprocess, self.bins, self.cell = encoder.grid, preprocess, bins, cell
        self.dim = (patch // cell) ** 2 * encoder.in_channels * bins

    @torch.no_grad()
    def forward(self, clip: Tensor, mask: Mask) -> Tensor:
        """float32 [B,M,P]; float64 if the clip is float64."""
        cut(clip, self.grid)  # refuses a clip of another size
        frames = clip[:, :, :: self.grid.tubelet].to(torch.promote_types(clip.dtype, torch.float32))
        histograms = self.histograms(self.preprocess.denormalise(frames))  # [B,C,t,H/cell,W/cell,bins]
        side = self.grid.patch // self.cell
        patches = histograms.unflatten(4, (self.grid.w, side)).unflatten(3, (self.grid.h, side))
        tokens = torch.einsum("bcthuwvk->bthwuvck", patches).flatten(4).flatten(1, 3)  # [B,N,P]
        return tokens.gather(1, mask.hidden[..., None].expand(-1, -1, self.dim))

    def histograms(self, frames: Tensor) -> Tensor:
        """float [...,H,W] -> [...,H/cell,W/cell,bins], each of length 1."""
        across, down = _gradients(frames)
        magnitude = torch.hypot(across, down)
        # directions in half a turn: 0 to `bins`, of which -1 and `bins` - 1 are the same
        directions = (torch.atan2(down, across) * (self.bins / math.pi)).floor().remainder(self.bins)
        # a sum per bin, because all bins at once would need `bins` copies of the clip
        sums = [self._sum_cells(magnitude * (directions == number)) for number in range(self.bins)]
        return F.normalize(torch.stack(sums, dim=-1), dim=-1)

    def _sum_cells(self, x: Tensor) -> Tensor:
        """[...,H,W] -> [...,H/cell,W/cell]."""
        x = x.unflatten(-1, (-1, self.cell)).sum(-1)
        return x.unflatten(-2, (-1, self.cell)).sum(-2)

    def baselines(self, truth: Tensor) -> dict[str, Tensor]:
        """`mean_hog_loss`: the loss of predicting the mean histogram of the batch for every token."""
        return {"mean_hog_loss": (truth - truth.mean((0, 1))).square().mean()}


def _gradients(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel's 3x3 gradients across and down, [...,H,W] each; the border is mirrored.

    Differences of slices, because autocast would run a convolution in half precision.
    """
    x = F.pad(frames.flatten(0, -3), (1, 1, 1, 1), mode="reflect")
    across, down = x[..., 2:] - x[..., :-2], x[..., 2:, :] - x[..., :-2, :]
    across = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    down = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return across.view_as(frames), down.view_as(frames)
