"""What is exported of a model: one function from a clip to one tensor, with the interface that stays the same whatever
is inside: float32 or uint8 in, float32 out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from tubelet.data.transforms import Preprocess
from tubelet.evaluate.window_features import Pool, WindowFeatures
from tubelet.models.base import encoder_of
from tubelet.models.classifier import VideoClassifier

Output = Literal["logits", "tokens", "features"]


class Exported(nn.Module):
    """clip [B,C,T,H,W] -> float32: logits [B,classes], tokens [B,prefix+N,D], or what `tubelet features --window` makes
    of a window, features [B,L*D]. A window is a clip: the windows of a video are the batch.

    Args:
        model: a VideoClassifier, MaskedModel or encoder; of a MaskedModel its encoder is exported. It is copied.
        output: None: "logits" of a classifier, else "tokens".
        layers, pool: of the features, see WindowFeatures.
        uint8: the clip is uint8, already resized and cropped, and is normalised inside; else float32, normalised.
        half: compute in float16.

    Raises ValueError if the model has no such output or layers.
    """

    def __init__(
        self,
        model: Any,
        output: Output | None = None,
        layers: Sequence[int] = (),
        pool: Pool = "mean",
        uint8: bool = False,
        half: bool = False,
    ) -> None:
        super().__init__()
        classifies = isinstance(model, VideoClassifier)
        self.output: str = output or ("logits" if classifies else "tokens")
        if self.output not in get_args(Output):
            raise ValueError(f"unknown output '{output}', expected one of {', '.join(get_args(Output))}")
        if self.output == "logits" and not classifies:
            raise ValueError(f"a {type(model).__name__} has no logits: export tokens or features")
        if self.output != "features" and (layers or pool != "mean"):
            raise ValueError(f"layers and pool are of output=features, the output is {self.output}")
        self.preprocess: Preprocess = model.preprocess
        self.labels: dict[int, str] | None = model.id2label if classifies else None
        part = copy.deepcopy(model if self.output == "logits" else encoder_of(model)).eval().requires_grad_(False)
        self.model: Any = part.half() if half else part.float()
        self.features = WindowFeatures(part, self.preprocess, layers, pool) if self.output == "features" else None
        self.uint8, self.dtype = uint8, torch.float16 if half else torch.float32

    def forward(self, clip: Tensor) -> Tensor:
        x = self.preprocess.normalise(clip) if self.uint8 else clip
        x = x.to(self.dtype)
        out: Tensor = self.model(x) if self.features is None else self.features.pooled(self.features.tokens(x).float())
        return out.float()

    def example(self, batch: int) -> Tensor:
        """A random clip of the right size and type, the same every time."""
        encoder = encoder_of(self.model)
        grid, generator = encoder.grid, torch.Generator().manual_seed(batch)
        size = (batch, encoder.in_channels, grid.frames, grid.height, grid.width)
        pixels = torch.randint(256, size, generator=generator, dtype=torch.uint8)
        return pixels if self.uint8 else self.preprocess.normalise(pixels)

    def about(self) -> dict[str, Any]:
        """What a program needs to feed the function and to read its output: plain data."""
        grid, preprocess = encoder_of(self.model).grid, self.preprocess
        return {
            "input": f"{'uint8' if self.uint8 else 'float32'} clip [B,C,T,H,W]",
            "normalised": "within" if self.uint8 else "before: (x * scale - offset - mean) / std",
            "output": self.output,
            "clip": [grid.frames, grid.height, grid.width],
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "scale": preprocess.scale,
            "offset": preprocess.offset,
            "short_side": preprocess.short_side,
            "interpolation": preprocess.interpolation,
            "size": None if preprocess.size is None else list(preprocess.size),
            "sampling": preprocess.sampling,
            "stride": preprocess.stride,
            "fps": preprocess.fps,
            "problem": self.model.problem if self.output == "logits" else None,
            "labels": None if self.labels is None else [self.labels[i] for i in sorted(self.labels)],
        }
