"""`trainer.activation_checkpointing` and `trainer.compile`. They are settings of the machine, not of the model."""

from __future__ import annotations

import logging

import lightning as L

from tubelet.layers.stack import blocks_of
from tubelet.layers.switches import switch

log = logging.getLogger(__name__)


class BlockSwitches(L.Callback):
    """Sets both for every block of the model's stacks: encoder, decoder and attentive pool."""

    def __init__(self, checkpoint_activations: bool, compiled: bool) -> None:
        self.checkpoint_activations, self.compiled = checkpoint_activations, compiled

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        compiled = self.compiled and not slower_compiled(trainer)
        if self.compiled and not compiled and trainer.is_global_zero:
            log.warning(
                "trainer.compile stays off: on the CPU in float32 compiled blocks were slower than without "
                "(see docs/performance.md)"
            )
        for block in blocks_of(pl_module):
            switch(block, self.checkpoint_activations, compiled)


def slower_compiled(trainer: L.Trainer) -> bool:
    """Whether compiled blocks were measured to be slower on this kind of device, in this precision."""
    return trainer.strategy.root_device.type == "cpu" and trainer.precision == "32-true"
