import pytest

from tubelet.encoders.vit import VideoViT
from tubelet.models.mae import MaskedAutoencoder
from tubelet.optim.groups import layer_of, parameter_groups

DEPTH = 3


def model() -> MaskedAutoencoder:
    encoder = VideoViT(16, 4, patch_size=8, dim=12, depth=DEPTH, num_heads=2, position="learned")
    return MaskedAutoencoder(encoder, decoder_dim=8, decoder_depth=1, decoder_heads=2)


def test_vectors_tokens_and_positions_do_not_decay() -> None:
    groups = parameter_groups(model(), weight_decay=0.05)
    decays = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert decays["encoder.blocks.0.attn.qkv.weight"] == 0.05
    assert decays["encoder.patch_embed.proj.weight"] == 0.05
    for name in ["encoder.blocks.0.attn.q_bias", "encoder.norm.weight", "mask_token", "encoder.positions"]:
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


def test_layers_by_hand() -> None:
    assert layer_of("encoder.cls_token", 12) == 0
    assert layer_of("model.encoder.blocks.11.mlp.fc1.weight", 12) == 12
    assert layer_of("decoder.blocks.0.norm1.weight", 12) == 13
    assert layer_of("head.weight", 12) == 13


def test_a_frozen_model_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to train"):
        parameter_groups(model().requires_grad_(False), 0.05)
