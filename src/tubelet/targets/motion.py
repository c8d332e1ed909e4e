"""What moves, not what stands: each hidden pixel minus a frame to compare with, over how much it changes in the clip.

Pixels of a static background are most of an ordinary pixel loss, and copying them from a neighbouring frame is most of
its lesson. Here they are zero. Frame differences as a target: MotionMAE, https://arxiv.org/abs/2210.04154. Where we
differ: MotionMAE predicts pixels beside them with a second head, and takes absolute differences.

The deviation has a floor. Without one, the noise of a camera in a static pixel would be scaled up to the size of a
motion, and most of the target would be noise.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tubelet.data.transforms import Preprocess
from tubelet.encoders.base import Encoder
from tubelet.layers.patch import cut, take
from tubelet.masking import Mask
from tubelet.targets.base import Target


class Motion(Target):
    """[B,M,P], ordered (p0 p1 p2 c), P = tubelet * patch * patch * C:
    `(pixel - reference) / (deviation + floor)`. The deviation is that of the same pixel and channel over the whole
    clip: the root of the mean square of `pixel - reference`. Pixels lie in [0, 1].

    Args:
        reference: "mean", the mean frame of the clip; or "neighbour", the frame before (for the first, the one after).
        floor: added to the deviation; larger than the noise of a camera.

    Raises ValueError if a clip has one frame, or if the floor is not positive.
    """

    def __init__(
        self,
        encoder: Encoder,
        preprocess: Preprocess,
        reference: Literal["mean", "neighbour"] = "mean",
        floor: float = 0.02,
    ) -> None:
        super().__init__()
        if reference not in ("mean", "neighbour"):
            raise ValueError(f"target.reference must be mean or neighbour, got '{reference}'")
        if floor <= 0:
            raise ValueError(f"target.floor must be positive, got {floor}: static pixels have no deviation")
        if encoder.grid.frames < 2:
            raise ValueError(f"motion needs at least 2 frames, encoder.num_frames is {encoder.grid.frames}")
        self.grid, self.preprocess = encoder.grid, preprocess
        self.reference, self.floor = reference, floor
        self.dim = encoder.grid.patch_numel(encoder.in_channels)

    @torch.no_grad()
    def forward(self, clip: Tensor, mask: Mask) -> Tensor:
        """float32 [B,M,P]; float64 if the clip is float64."""
        pixels, reference, scale = self._parts(clip)
        return self._hidden((pixels - reference) / scale, mask)

    def _parts(self, clip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised clip [B,C,T,H,W] -> pixels in [0, 1] and their reference, both [B,C,T,H,W] or to be broadcast, and
        the deviation plus the floor [B,C,1,H,W].
        """
        pixels = self.preprocess.denormalise(clip.to(torch.promote_types(clip.dtype, torch.float32)))
        if self.reference == "mean":
            reference = pixels.mean(2, keepdim=True)
        else:
            reference = torch.cat([pixels[:, :, 1:2], pixels[:, :, :-1]], dim=2)
        return pixels, reference, (pixels - reference).square().mean(2, keepdim=True).sqrt() + self.floor

    def _hidden(self, clip: Tensor, mask: Mask) -> Tensor:
        """[B,C,T,H,W] -> the numbers of the hidden tubelets [B,M,P]."""
        return take(cut(clip, self.grid), mask.hidden).flatten(3).transpose(2, 3).flatten(2)

    def baselines(self, truth: Tensor) -> dict[str, Tensor]:
        """`no_motion_loss`: the loss of predicting that nothing moves. It is all that a static background teaches."""
        return {"no_motion_loss": truth.square().mean()}

    def to_pixels(self, prediction: Tensor, clip: Tensor, mask: Mask) -> Tensor:
        """Predictions get the true reference and deviation of each pixel, which the model does not predict."""
        pixels, reference, scale = self._parts(clip)
        scale, reference = (self._hidden(each.expand_as(pixels), mask) for each in (scale, reference))
        return prediction * scale + reference

    @property
    def caption(self) -> str:
        borrowed = "mean over time" if self.reference == "mean" else "neighbour in time"
        return f"reconstructed (each pixel with its true {borrowed} and its true deviation)"
