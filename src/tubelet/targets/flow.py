"""Where things move: the optical flow of each hidden tubelet, by least squares on its own pixels, without a network.

Lucas and Kanade, IJCAI 1981. Within a window, the flow v is the one that best explains how brightness changes:
`gradient . v = -(next frame - this frame)`. It has neither colour nor texture nor contrast; so what an encoder has to
know for it is the motion and nothing else. Methods that need flow from a network as a target: MME,
https://arxiv.org/abs/2210.06096. Here it costs little more than pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tubelet.data.transforms import Preprocess
from tubelet.encoders.base import Encoder
from tubelet.layers.patch import cut
from tubelet.masking import Mask
from tubelet.targets.base import Target

CELL = 4
"""Side of a cell in the reduced frames, and the largest flow. Least squares see motions of a few pixels only."""


class Flow(Target):
    """[B,M,P], ordered (frame, x y, row of cells, column of cells): P = tubelet * 2 * cells^2. The flow from each frame
    to the next one (of the last frame: the one before), in quarters of a cell, from -4 to 4; 0 where nothing moves.

    Frames are first reduced so that a cell has 4 x 4 pixels. The window of a cell is twice as wide as the cell.

    Args:
        cells: cells along a side of a patch; it must divide the patch, into cells of a multiple of 4 pixels or fewer.
        floor: change from pixel to pixel (pixels lie in [0, 1]) below which a texture counts as flat. Where
            a window has less, its flow shrinks to 0, so that noise does not move.

    Raises ValueError if a clip has one frame, for other cells, or if the floor is not positive.
    """

    def __init__(self, encoder: Encoder, preprocess: Preprocess, cells: int = 2, floor: float = 0.02) -> None:
        super().__init__()
        grid = encoder.grid
        if grid.frames < 2:
            raise ValueError(f"flow needs at least 2 frames, encoder.num_frames is {grid.frames}")
        if floor <= 0:
            raise ValueError(f"target.floor must be positive, got {floor}: where nothing is seen, nothing is known")
        side = grid.patch // max(cells, 1)
        if cells < 1 or grid.patch % cells or (side > CELL and side % CELL):
            raise ValueError(
                f"target.cells {cells} does not divide encoder.patch_size {grid.patch} into cells of {CELL}, "
                f"{2 * CELL}, {3 * CELL}, ... pixels, or of fewer than {CELL}"
            )
        self.grid, self.preprocess, self.cells, self.floor = grid, preprocess, cells, floor
        self.cell, self.reduce = min(side, CELL), max(side // CELL, 1)
        self.dim = grid.tubelet * 2 * cells**2

    @torch.no_grad()
    def forward(self, clip: Tensor, mask: Mask) -> Tensor:
        """float32 [B,M,P]; float64 if the clip is float64."""
        cut(clip, self.grid)  # refuses a clip of another size
        pixels = self.preprocess.denormalise(clip.to(torch.promote_types(clip.dtype, torch.float32)))
        flow = self.flow(pixels.transpose(1, 2))
        flow = torch.cat([flow, flow[:, -1:]], dim=1)  # [B,T,2,H/cell,W/cell]
        cells = flow.unflatten(4, (self.grid.w, self.cells)).unflatten(3, (self.grid.h, self.cells))
        cells = cells.unflatten(1, (self.grid.t, self.grid.tubelet))
        tokens = torch.einsum("btpdhuwv->bthwpduv", cells).flatten(4).flatten(1, 3)  # [B,N,P]
        return tokens.gather(1, mask.hidden[..., None].expand(-1, -1, self.dim))

    def flow(self, frames: Tensor) -> Tensor:
        """Pixels in [0, 1], [B,T,C,H,W] -> [B,T-1,2,H/cell,W/cell]: along x and y, between each frame and the next."""
        if self.reduce > 1:
            frames = F.avg_pool2d(frames.flatten(0, 1), self.reduce).unflatten(0, frames.shape[:2])
        middle = (frames[:, 1:] + frames[:, :-1]) / 2
        change = (frames[:, 1:] - frames[:, :-1]).flatten(0, 1)  # [B*(T-1),C,h,w]
        x = F.pad(middle.flatten(0, 1), (1, 1, 1, 1), mode="replicate")
        across = (x[:, :, 1:-1, 2:] - x[:, :, 1:-1, :-2]) / 2
        down = (x[:, :, 2:, 1:-1] - x[:, :, :-2, 1:-1]) / 2
        flat = self.floor**2
        xx, yy = self._window(across * across) + flat, self._window(down * down) + flat
        xy, xt, yt = self._window(across * down), self._window(across * change), self._window(down * change)
        determinant = xx * yy - xy * xy  # positive, because of the floor
        flow = torch.cat([xy * yt - yy * xt, xy * xt - xx * yt], dim=1) / determinant
        return flow.clamp(-CELL, CELL).unflatten(0, middle.shape[:2])

    def _window(self, x: Tensor) -> Tensor:
        """[n,C,h,w] -> [n,1,h/cell,w/cell]: the sum over channels, averaged over the window of each cell."""
        x = x.sum(1, keepdim=True)
        # half a cell more on each side; an even number of pixels, or else the window is the cell
        margin = self.cell // 2
        return F.avg_pool2d(x, self.cell + 2 * margin, self.cell, padding=margin, count_include_pad=False)

    def baselines(self, truth: Tensor) -> dict[str, Tensor]:
        """`no_flow_loss`: the loss of predicting that nothing moves."""
        return {"no_flow_loss": truth.square().mean()}
