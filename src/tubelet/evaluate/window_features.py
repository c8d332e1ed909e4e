"""What an encoder makes of windows: of its last layer or of several, of all tokens or of their means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from tubelet.data.transforms import Preprocess
from tubelet.encoders.base import Encoder, EncoderOutput
from tubelet.evaluate.device import device_of

Pool = Literal["mean", "spatial", "tokens"]


class WindowFeatures:
    """uint8 windows [B,T,h,w,C] -> features [B,...,L*D] on the CPU.

    Args:
        layers: blocks, counted from 1, whose outputs stand side by side in the last dimension, each through the last
            norm, so that the last block is what the encoder returns; empty: what the encoder returns.
        pool: "mean": over all tokens but class tokens, [B,L*D]; "spatial": over the positions of a time step,
            [B,t,L*D]; "tokens": all, class tokens first, [B,prefix+N,L*D].
        half: float16 features; on a GPU they are also computed so.

    Raises ValueError if the encoder has no such layers.
    """

    def __init__(
        self,
        encoder: Encoder,
        preprocess: Preprocess,
        layers: Sequence[int] = (),
        pool: Pool = "mean",
        half: bool = False,
    ) -> None:
        if pool not in get_args(Pool):
            raise ValueError(f"pool must be {', '.join(get_args(Pool))}, got {pool!r}")
        depth = len(encoder.layers()) - 2  # without the embedding and the last norm
        if wrong := [layer for layer in layers if not 1 <= layer <= depth]:
            raise ValueError(f"layer {wrong[0]} does not exist: the encoder has the blocks 1 to {depth}")
        if layers and not encoder.uniform_states:
            raise ValueError(
                f"the layers of {type(encoder).__name__} are of different kinds: only the last can be taken"
            )
        self.encoder, self.preprocess = encoder, preprocess
        self.layers, self.pool, self.half = tuple(layers), pool, half
        grid = encoder.grid  # one empty window: what an encoder cannot do is said before anything is decoded
        self(torch.zeros(1, grid.frames, grid.height, grid.width, encoder.in_channels, dtype=torch.uint8))

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        device = device_of(self.encoder)
        clip = self.preprocess.normalise(clips.to(device, non_blocking=True).permute(0, 4, 1, 2, 3))  # [B,C,T,h,w]
        with torch.autocast(device.type, torch.float16, enabled=self.half and device.type == "cuda"):
            tokens = self.tokens(clip)  # [B,prefix+N,L*D]
        features = self.pooled(tokens if self.pool == "tokens" else tokens.float())
        return features.to(torch.float16 if self.half else torch.float32).cpu()

    def tokens(self, clip: Tensor) -> Tensor:
        """Normalised [B,C,T,h,w] -> [B,prefix+N,L*D]."""
        if not self.layers:
            return self.encoder(clip)
        output = self.encoder(clip, return_hidden_states=True)
        assert isinstance(output, EncoderOutput)
        assert output.hidden_states is not None
        return torch.cat([self.encoder.norm(output.hidden_states[layer]) for layer in self.layers], dim=-1)

    def pooled(self, tokens: Tensor) -> Tensor:
        """[B,prefix+N,L*D] -> as `pool` says."""
        if self.pool == "tokens":
            return tokens
        patches = tokens[:, self.encoder.num_prefix_tokens :]  # [B,N,L*D]
        if self.pool == "mean":
            return patches.mean(1)
        return patches.unflatten(1, (self.encoder.grid.t, -1)).mean(2)  # [B,t,h*w,L*D] -> [B,t,L*D]
