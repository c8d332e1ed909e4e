"""Features of a teacher that sees the whole clip: of a moving average of the encoder, or of frozen encoders.

The moving average is V-JEPA's target: Bardes et al., https://arxiv.org/abs/2404.08471. A frozen teacher is SALT's:
https://arxiv.org/abs/2509.24317. Two of them, one of images and one of videos, are MVD's:
https://arxiv.org/abs/2212.04500. V-JEPA's predictor is the self-attention decoder.

Where we differ: V-JEPA runs each clip with two masks, and has a mask token for each; here each clip has one mask, and
`multiblock` draws both kinds. MVD has a decoder per teacher; here one decoder has a row of outputs for each.

The teacher's weights are part of the model's state: a checkpoint holds them, so it can be moved, and a continued run
has the same teacher, bit for bit, whatever has become of the file it came from.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from tubelet.clip import ClipGrid
from tubelet.data.transforms import Preprocess
from tubelet.encoders.base import Encoder
from tubelet.masking import Mask
from tubelet.targets.base import Target

DISTANCES = {"l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss, "mse": F.mse_loss}


class Features(Target):
    """[B,M,P], P = the widths of all teachers, one after the other. The loss is the sum of the teachers' distances.

    Args:
        teacher: None: the moving average of the encoder. Else a source of weights, or a list of them: whatever
            `load_encoder` reads, or `timm:NAME`. The run replaces each by its description (tubelet.weights.teachers).
        momentum: of the moving average, after the first step and after the last; linear between them. V-JEPA's.
        normalise: each feature vector to mean 0 and deviation 1.
        final_norm: whether the teachers' last norm is used.
        distance: "l1", "smooth_l1" or "mse", the mean over all features of a teacher.

    Raises ValueError if a teacher's tokens cannot be those of the encoder.
    """

    averages_weights = True
    """Without a teacher: see tubelet.config.combinations."""

    def __init__(
        self,
        encoder: Encoder,
        preprocess: Preprocess,
        teacher: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None = None,
        momentum: Sequence[float] = (0.998, 0.9996),
        normalise: bool = True,
        final_norm: bool = True,
        distance: Literal["l1", "smooth_l1", "mse"] = "l1",
    ) -> None:
        super().__init__()
        if len(momentum) != 2 or not all(0.0 < value <= 1.0 for value in momentum):
            raise ValueError(f"target.momentum must be two numbers in (0, 1], got {list(momentum)}")
        if distance not in DISTANCES:
            raise ValueError(f"target.distance must be one of {', '.join(DISTANCES)}, got '{distance}'")
        self.can_collapse = teacher is None
        given = [] if teacher is None else [teacher] if isinstance(teacher, str | Mapping) else list(teacher)
        self.sources, self.preprocesses, teachers = [], [preprocess], [copy.deepcopy(encoder)]
        if given:
            described = [_described(each) for each in given]
            self.sources = [str(each["source"]) for each in described]
            self.preprocesses = [each["preprocess"] for each in described]
            teachers = [_build(each, encoder.grid) for each in described]
        for each in teachers:
            each.norm = each.norm if final_norm else nn.Identity()
        self.grid, self.preprocess, self.distance = encoder.grid, preprocess, distance
        self.normalise, self.momentum = normalise, (momentum[0], momentum[1])
        self.teachers = nn.ModuleList(teachers).requires_grad_(False).eval()
        self.dims = [each.dim for each in teachers]
        self.dim = sum(self.dims)

    def train(self, mode: bool = True) -> Features:
        """The teachers stay in eval mode: no dropout and no drop path."""
        super().train(mode)
        self.teachers.eval()
        return self

    @torch.no_grad()
    def forward(self, clip: Tensor, mask: Mask) -> Tensor:
        """At least float32 [B,M,P]."""
        features = []
        for teacher, preprocess in zip(self.teachers, self.preprocesses, strict=True):
            assert isinstance(teacher, Encoder)
            tokens = teacher(self._as_seen_by(teacher, preprocess, clip))[:, teacher.num_prefix_tokens :]  # [B,N,D]
            hidden = tokens.gather(1, mask.hidden[..., None].expand(-1, -1, teacher.dim))
            hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
            features.append(F.layer_norm(hidden, [teacher.dim]) if self.normalise else hidden)
        return torch.cat(features, dim=2)

    def _as_seen_by(self, teacher: Encoder, preprocess: Preprocess, clip: Tensor) -> Tensor:
        """The clip [B,C,T,H,W] with the teacher's frames, at its size, normalised as its weights want it."""
        clip = preprocess.renormalise(clip[:, :, :: self.grid.tubelet // teacher.grid.tubelet], self.preprocess)
        size = teacher.grid.height, teacher.grid.width
        if clip.shape[3:] == size:
            return clip
        frames = clip.transpose(1, 2).flatten(0, 1)  # [B*T,C,H,W]
        frames = F.interpolate(frames, size, mode="bilinear", antialias=True)
        return frames.unflatten(0, (len(clip), -1)).transpose(1, 2)

    def loss(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """The sum over the teachers of the mean distance."""
        pairs = zip(prediction.to(truth.dtype).split(self.dims, 2), truth.split(self.dims, 2), strict=True)
        return torch.stack([DISTANCES[self.distance](mine, theirs) for mine, theirs in pairs]).sum()

    def baselines(self, truth: Tensor) -> dict[str, Tensor]:
        """`mean_feature_loss`: the loss of predicting the batch's mean feature for every token. If it falls towards 0,
        all features are alike: the moving average has collapsed.
        """
        return {"mean_feature_loss": self.loss(truth.mean((0, 1), keepdim=True).expand_as(truth), truth)}

    def start(self, encoder: nn.Module) -> None:
        """The moving average starts as the encoder. Frozen teachers stay as they are."""
        if not self.sources:
            state = encoder.state_dict()
            self.teachers[0].load_state_dict({name: state[name] for name in self.teachers[0].state_dict()})

    @torch.no_grad()
    def after_step(self, encoder: nn.Module, step: int, total: int) -> None:
        if self.sources:
            return
        share = min((step - 1) / max(total - 1, 1), 1.0)
        momentum = self.momentum[0] + (self.momentum[1] - self.momentum[0]) * share
        mine, theirs = dict(self.teachers[0].named_parameters()), dict(encoder.named_parameters())
        move = get_ema_multi_avg_fn(momentum)  # type: ignore[no-untyped-call]
        move(list(mine.values()), [theirs[name] for name in mine], 0)


def _described(teacher: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(teacher, str):
        raise ValueError(f"the teacher {teacher} must be described first: see tubelet.weights.teachers.describe")
    return teacher


def _build(teacher: Mapping[str, Any], grid: ClipGrid) -> Encoder:
    """A teacher with one token for each token of `grid`. Its weights are random: the run or the checkpoint fills them.

    It has its own patches, so it sees frames of another size; and tubelets as long as the encoder's, or shorter ones:
    then it sees the first frames of each.
    """
    patch, tubelet = teacher["patch"], teacher["tubelet"]
    if grid.tubelet % tubelet:
        raise ValueError(
            f"the teacher {teacher['source']} sees {tubelet} frames per token and the encoder {grid.tubelet}: "
            "the teacher's number must divide the encoder's"
        )
    built: Encoder = teacher["encoder"](image_size=[grid.h * patch, grid.w * patch], num_frames=grid.t * tubelet)
    if not teacher["normed"]:
        built.norm = nn.Identity()
    return built
