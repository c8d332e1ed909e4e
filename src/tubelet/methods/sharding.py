"""FSDP2: a model's parameters spread over the ranks, gathered for as long as they are computed with."""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from tubelet.layers.stack import blocks_of
from tubelet.models.base import VideoModel


def shard(model: VideoModel, mesh: DeviceMesh) -> None:
    """Each block is gathered by itself; then what else the encoder holds, for callbacks call it alone; then the rest.

    Mixed precision is left to autocast, as under any other strategy: what travels is float32.
    """
    for part in (*blocks_of(model), model.encoder, model):
        fully_shard(part, mesh=mesh)


def keep_whole(model: nn.Module, whole: bool) -> None:
    """Gather all of a sharded model and leave it so, or spread it again. Whole, it may be called more often on one rank
    than on another, as in an evaluation, where a rank may have no video left; sharded, the others would wait for ever.
    """
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.set_reshard_after_forward(not whole and part is not model, recurse=False)
            if whole:
                part.unshard()
            else:
                part.reshard()
