from functools import partial

import pytest
from torch import nn

from tubelet.clip import ClipGrid
from tubelet.decoders.self_attention import SelfAttentionDecoder
from tubelet.encoders.base import Encoder
from tubelet.encoders.timesformer import TimeSformer
from tubelet.encoders.vit import VideoViT
from tubelet.encoders.vivit import FactorisedViViT
from tubelet.models.classifier import VideoClassifier
from tubelet.models.masked import MaskedModel
from tubelet.optim.groups import parameter_groups

DEPTH = 3


def model() -> MaskedModel:
    encoder = VideoViT(16, 4, patch_size=8, dim=12, depth=DEPTH, num_heads=2, position="learned")
    return MaskedModel(encoder, partial(SelfAttentionDecoder, dim=8, depth=1, num_heads=2))


def test_vectors_tokens_and_positions_do_not_decay() -> None:
    groups = parameter_groups(model(), weight_decay=0.05)
    decays = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert decays["encoder.blocks.0.attn.qkv.weight"] == 0.05
    assert decays["encoder.patch_embed.proj.weight"] == 0.05
    for name in ["encoder.blocks.0.attn.q_bias", "encoder.norm.weight", "decoder.mask_token", "encoder.positions"]:
        assert decays[name] == 0.0
    assert len(decays) == len(list(model().parameters()))


def test_every_parameter_is_in_exactly_one_group() -> None:
    mae = model()
    grouped = [id(p) for group in parameter_groups(mae, 0.05, layer_decay=0.5) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in mae.parameters())


def test_layer_decay_by_hand() -> None:
    scales = {n: g["lr_scale"] for g in parameter_groups(model(), 0.05, layer_decay=0.5) for n in g["names"]}
    assert scales["encoder.patch_embed.proj.weight"] == 0.5 ** (DEPTH + 1)
    assert scales["encoder.positions"] == 0.5 ** (DEPTH + 1)
    assert scales["encoder.blocks.0.norm1.weight"] == 0.5**DEPTH
    assert scales["encoder.blocks.2.mlp.fc1.weight"] == 0.5
    assert scales["encoder.norm.weight"] == scales["decoder.head.weight"] == 1.0


@pytest.mark.parametrize("encoder", [TimeSformer, FactorisedViViT])
def test_layers_of_encoders_with_a_class_token(encoder: type) -> None:
    classifier = VideoClassifier(encoder(16, 4, patch_size=8, dim=12, depth=2, num_heads=2), 3, pool="cls")
    depth = len(classifier.encoder.blocks)
    scales = {n: g["lr_scale"] for g in parameter_groups(classifier, 0.05, layer_decay=0.5) for n in g["names"]}
    assert scales["encoder.cls_token"] == scales["encoder.time_positions"] == 0.5 ** (depth + 1)
    assert scales[f"encoder.blocks.{depth - 1}.mlp.fc1.weight"] == 0.5
    assert scales["encoder.norm.weight"] == scales["head.weight"] == 1.0


class Elastic(Encoder):
    """Its list of blocks has another name, and its blocks are no `Block`."""

    def __init__(self) -> None:
        super().__init__()
        self.grid, self.dim, self.in_channels = ClipGrid(2, 8, 8, 2, 8), 4, 3
        self.embed, self.stages = nn.Linear(1, 4), nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.norm = nn.LayerNorm(4)

    def layers(self) -> list[nn.Module]:
        return [self.embed, *self.stages, self.norm]

    def forward(self, clip, mask=None, return_hidden_states=False, return_attentions=False):
        return self.norm(clip)


def test_layer_decay_goes_by_layers_and_not_by_names() -> None:
    groups = parameter_groups(VideoClassifier(Elastic(), 2), 0.05, layer_decay=0.5)
    scales = {name: group["lr_scale"] for group in groups for name in group["names"]}
    assert scales["encoder.embed.weight"] == 0.125
    assert (scales["encoder.stages.0.weight"], scales["encoder.stages.1.weight"]) == (0.25, 0.5)


def test_layer_decay_of_a_model_without_an_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has none"):
        parameter_groups(nn.Linear(2, 2), 0.05, layer_decay=0.5)


def test_a_frozen_model_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to train"):
        parameter_groups(model().requires_grad_(False), 0.05)
