"""`trainer.activation_checkpointing` and `trainer.compile`: settings of the machine, not of the model."""

from __future__ import annotations

import lightning as L

from tubelet.layers.block import blocks_of


class BlockSwitches(L.Callback):
    """Throws the two switches of every transformer block: of encoder, decoder and attentive pools."""

    def __init__(self, checkpoint_activations: bool, compiled: bool) -> None:
        self.checkpoint_activations, self.compiled = checkpoint_activations, compiled

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for block in blocks_of(pl_module):
            block.checkpoint_activations, block.compiled = self.checkpoint_activations, self.compiled
