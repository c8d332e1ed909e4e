"""`trainer.activation_checkpointing` and `trainer.compile`. They are settings of the machine, not of the model."""

from __future__ import annotations

import lightning as L

from tubelet.layers.stack import blocks_of
from tubelet.layers.switches import switch


class BlockSwitches(L.Callback):
    """Sets both for every block of the model's stacks: encoder, decoder and attentive pool."""

    def __init__(self, checkpoint_activations: bool, compiled: bool) -> None:
        self.checkpoint_activations, self.compiled = checkpoint_activations, compiled

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for block in blocks_of(pl_module):
            switch(block, self.checkpoint_activations, self.compiled)
