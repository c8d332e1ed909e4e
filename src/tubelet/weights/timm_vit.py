"""Image ViTs of timm: as encoders of single frames, or as the start of a video encoder.

For the latter the patch embedding is inflated over the frames of a tubelet: the weight is repeated per frame and
divided by the number of frames (Carreira and Zisserman, https://arxiv.org/abs/1705.07750). So a clip that repeats one
image has the same embedding as the image. The temporal attention of TimeSformer starts as a copy of the spatial one,
with a projection of zeros, as in its original code.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from tubelet.data.transforms import Preprocess
from tubelet.encoders.base import Encoder
from tubelet.encoders.image import ImageViT, timm_vit
from tubelet.encoders.timesformer import DividedBlock
from tubelet.encoders.vivit import FactorisedViViT
from tubelet.layers.position import resize_table
from tubelet.nodes import path_of
from tubelet.weights.place import Report
from tubelet.weights.source import Source, State

TIMM = "timm:"
"""The beginning of a source of weights that is a name of timm."""

_DROPPED = re.compile(r"(head|fc_norm|norm|cls_token|pos_embed)\b")
_FRESH = re.compile(r"(time_positions|time_cls_token|pooler|spatial_norm|norm|positions)\b|blocks\.\d+\.temporal_")


@torch.no_grad()
def inflate(encoder: Encoder, vit: nn.Module) -> Report:
    """Copy a timm VisionTransformer of the same width, depth, heads and patch size into `encoder`.

    Raises ValueError with both numbers where they differ, or with the names of weights that have no place.
    """
    image: Any = vit
    blocks: Any = encoder.blocks[: encoder.depth] if isinstance(encoder, FactorisedViViT) else encoder.blocks
    _require_equal("width", image.embed_dim, encoder.dim)
    _require_equal("depth", len(image.blocks), len(blocks))
    _require_equal("num_heads", image.blocks[0].attn.num_heads, blocks[0].attn.num_heads)
    _require_equal("patch_size", tuple(image.patch_embed.patch_size), (encoder.grid.patch,) * 2)
    state, wanted = dict(image.state_dict()), encoder.state_dict()
    new = _patch_embedding(state, encoder) | _positions(state, encoder, wanted) | _biases(state, wanted)
    new |= {key: state.pop(key) for key in list(state) if key in wanted}
    dropped, fresh = sorted(state), sorted(wanted.keys() - new.keys() - _temporal_blocks(encoder))
    problems = [key for key in dropped if not _DROPPED.match(key)] + [key for key in fresh if not _FRESH.match(key)]
    if problems:
        raise ValueError(f"{type(vit).__name__} and {type(encoder).__name__} differ in: {', '.join(problems)}")
    encoder.load_state_dict(new, strict=False)
    for block in blocks:
        if isinstance(block, DividedBlock):
            block.temporal_norm.load_state_dict(block.norm1.state_dict())
            block.temporal_attn.load_state_dict(block.attn.state_dict())
            nn.init.zeros_(block.temporal_proj.weight)
            nn.init.zeros_(block.temporal_proj.bias)
    return Report(tuple(sorted(new)), tuple(dropped), tuple(fresh))


def read_timm(source: str) -> Source:
    """`timm:NAME` as an encoder of single frames, with timm's weights. Raises ValueError if there are none."""
    name = source.removeprefix(TIMM)
    try:
        vit = timm_vit(name, pretrained=True)
    except ValueError:
        raise
    except Exception as error:  # the hub's client raises a dozen types of errors with this meaning
        raise ValueError(f"{source} could not be fetched: {error}") from error
    cfg = vit.pretrained_cfg
    node = {
        "_target_": path_of(ImageViT),
        "name": name,
        "image_size": int(cfg["input_size"][-1]),
        "preprocess": {"_target_": path_of(Preprocess), "mean": list(cfg["mean"]), "std": list(cfg["std"])},
    }
    state = {
        f"encoder.{key}" if key.startswith("norm.") else f"encoder.vit.{key}": value
        for key, value in vit.state_dict().items()
    }
    return Source(source, node, state)


def _patch_embedding(state: State, encoder: Encoder) -> State:
    weight, frames = state.pop("patch_embed.proj.weight"), encoder.grid.tubelet
    _require_equal("in_channels", weight.shape[1], encoder.in_channels)
    weight = weight[:, :, None].repeat(1, 1, frames, 1, 1) / frames  # [D,C,p,p] -> [D,C,p0,p1,p2]
    return {"patch_embed.proj.weight": weight}


def _positions(state: State, encoder: Encoder, wanted: State) -> State:
    """The learned position table, resized in space and repeated over time. Encoders with a fixed table keep theirs."""
    if not isinstance(getattr(encoder, "positions", None), nn.Parameter):
        return {}
    table, grid, prefix = state.pop("pos_embed"), encoder.grid, encoder.num_prefix_tokens
    side = int((table.shape[1] - 1) ** 0.5)
    space = resize_table(table[:, 1:], (1, side, side), (1, grid.h, grid.w))  # [1,h*w,D]
    times = (wanted["positions"].shape[1] - prefix) // space.shape[1]
    return {"positions": torch.cat([table[:, :prefix], space.repeat(1, times, 1)], dim=1)}


def _biases(state: State, wanted: State) -> State:
    """Split the bias of queries, keys and values, and drop that of the keys: it adds the same to all scores of a query,
    so the softmax does not change.
    """
    new: dict[str, Tensor] = {}
    for key in [key for key in state if key.endswith("attn.qkv.bias") and key not in wanted]:
        if (name := key.replace("qkv.bias", "q_bias")) in wanted:
            new[name], _, new[key.replace("qkv.bias", "v_bias")] = state.pop(key).chunk(3)
    return new


def _temporal_blocks(encoder: Encoder) -> set[str]:
    """Names of the weights in the temporal blocks of the factorised encoder, which an image model does not have."""
    if not isinstance(encoder, FactorisedViViT):
        return set()
    numbers = {str(i) for i in range(encoder.depth, len(encoder.blocks))}
    return {key for key in encoder.state_dict() if key.startswith("blocks.") and key.split(".")[1] in numbers}


def _require_equal(name: str, theirs: Any, ours: Any) -> None:
    if theirs != ours:
        raise ValueError(f"the image model has {name} {theirs}, the video encoder {ours}")
