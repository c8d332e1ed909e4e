"""FSDP2: the parameters of a model are spread over the ranks, and gathered only while they are used."""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from tubelet.layers.stack import blocks_of
from tubelet.models.base import VideoModel


def shard(model: VideoModel, mesh: DeviceMesh) -> None:
    """Shard each block separately, then the rest of the encoder (callbacks call the encoder alone), then the rest.

    Autocast does mixed precision here too, as under any other strategy. So ranks send each other float32.
    """
    for part in (*blocks_of(model), model.encoder, model):
        fully_shard(part, mesh=mesh)


def gather_parameters(model: nn.Module, gathered: bool) -> None:
    """Gather all parameters of a sharded model and keep them, or spread them again.

    In an evaluation one rank may have more batches than another. Each forward of a sharded model needs all ranks, so
    the rank with more batches would wait without end. With gathered parameters it needs no other rank.
    """
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.set_reshard_after_forward(not gathered and part is not model, recurse=False)
            if gathered:
                part.unshard()
            else:
                part.reshard()
