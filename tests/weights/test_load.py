"""Loading, against the original VideoMAE code (tests/golden) and our own checkpoints."""

import argparse
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tubelet.data.transforms import Preprocess
from tubelet.decoders.self_attention import SelfAttentionDecoder
from tubelet.encoders.vit import VideoViT
from tubelet.layers.position import sincos
from tubelet.masking import Mask
from tubelet.models.classifier import VideoClassifier
from tubelet.models.masked import MaskedModel
from tubelet.nodes import build, path_of
from tubelet.targets.pixels import Pixels
from tubelet.weights.load import load_encoder, load_model, start_from

GOLDEN = Path(__file__).parents[1] / "golden"
SIZES = {"image_size": 48, "num_heads": 3}
DECODER = {"dim": 12, "depth": 1, "num_heads": 2}


@pytest.fixture
def pretraining():
    return dict(np.load(GOLDEN / "videomae_pretrain.npz"))


def mae_node(**encoder):
    sizes = {"image_size": 32, "num_frames": 4, "dim": 24, "depth": 2, "num_heads": 2} | encoder
    return {
        "_target_": path_of(MaskedModel),
        "encoder": {"_target_": path_of(VideoViT)} | sizes,
        "decoder": {"_target_": path_of(SelfAttentionDecoder), "_partial_": True} | DECODER,
        "target": {"_target_": path_of(Pixels), "_partial_": True},
        "preprocess": {"_target_": path_of(Preprocess), "std": [0.5, 0.5, 0.5]},
    }


def save(path, node, **extra):
    model = build(node)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "model_config": node} | extra, path)
    return model


def test_pretraining_file_gives_the_original_numbers(pretraining):
    model = load_model(GOLDEN / "videomae_pretrain.pth", decoder_num_heads=3, **SIZES)
    clip = torch.from_numpy(pretraining["clip"]).float()
    mask = Mask.from_hidden(torch.from_numpy(pretraining["hidden"]))
    with torch.no_grad():
        out, encoded = model(clip, mask), model.encoder(clip, mask)
    assert not model.training
    assert np.abs(encoded.numpy() - pretraining["encoded"]).max() < 1e-5
    assert np.abs(out.pixels.numpy() - pretraining["pixels"]).max() < 1e-5
    assert abs(out.loss.item() - json.loads((GOLDEN / "videomae_pretrain.json").read_text())["loss"]) < 1e-5


def test_fine_tuned_file_gives_the_original_numbers():
    golden = np.load(GOLDEN / "videomae_finetune.npz")
    model = load_model(GOLDEN / "videomae_finetune.pth", **SIZES)
    clip = torch.from_numpy(golden["clip"]).float()
    with torch.no_grad():
        assert np.abs(model.features(clip).numpy() - golden["features"]).max() < 1e-5
        assert np.abs(model(clip).numpy() - golden["logits"]).max() < 1e-5


@pytest.mark.parametrize("wrapped", ["bare", "module"])
def test_wrappers_of_training_are_taken_off(wrapped, tmp_path):
    weights = torch.load(GOLDEN / "videomae_finetune.pth", weights_only=True)["model"]
    weights = {f"module.backbone._orig_mod.{key}": value for key, value in weights.items()}
    torch.save({"module": weights} if wrapped == "module" else weights, tmp_path / "x.pth")
    plain = load_model(GOLDEN / "videomae_finetune.pth", **SIZES)
    wrapped_model = load_model(tmp_path / "x.pth", **SIZES)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), wrapped_model.parameters(), strict=True))


def test_heads_of_an_unpublished_width_must_be_said():
    with pytest.raises(ValueError, match=r"pretrain.pth does not contain its number of attention heads.*width 36"):
        load_model(GOLDEN / "videomae_pretrain.pth")
    with pytest.raises(ValueError, match=r"decoder_num_heads= \(width 24"):
        load_model(GOLDEN / "videomae_pretrain.pth", **SIZES)


def test_every_key_is_accounted_for(tmp_path):
    weights = torch.load(GOLDEN / "videomae_finetune.pth", weights_only=True)["model"]
    weights["blocks.0.attn.rope"] = weights.pop("blocks.1.attn.v_bias")
    torch.save({"model": weights}, tmp_path / "x.pth")
    with pytest.raises(ValueError) as error:
        load_model(tmp_path / "x.pth", **SIZES)
    assert "unexpected key encoder.blocks.0.attn.rope" in str(error.value)
    assert "missing key encoder.blocks.1.attn.v_bias" in str(error.value)
    assert "x.pth" in str(error.value)


def test_classifier_from_a_pretraining_file_says_what_it_took(capsys):
    model = load_model(GOLDEN / "videomae_pretrain.pth", num_classes=5, decoder_num_heads=3, **SIZES)
    original = torch.load(GOLDEN / "videomae_pretrain.pth", weights_only=True)["model"]
    assert isinstance(model, VideoClassifier)
    assert model(torch.zeros(1, 3, 16, 48, 48)).shape == (1, 5)
    assert torch.equal(model.encoder.blocks[1].mlp.fc2.weight, original["encoder.blocks.1.mlp.fc2.weight"])
    printed = capsys.readouterr().out
    assert re.findall(r"fresh +(\S+)", printed) == ["fc_norm.bias", "fc_norm.weight", "head.bias", "head.weight"]
    dropped = re.findall(r"dropped +(\S+)", printed)
    expected = {"encoder.norm.weight", "encoder.norm.bias", "decoder.mask_token", "decoder.project.weight"}
    assert expected <= set(dropped)
    assert all(key.startswith(("decoder.", "encoder.norm.")) for key in dropped)


def test_another_number_of_classes_starts_a_fresh_head(capsys):
    model = load_model(GOLDEN / "videomae_finetune.pth", num_classes=3, **SIZES)
    assert model.head.weight.shape == (3, 36)
    assert "fresh    head.weight" in capsys.readouterr().out
    same = load_model(GOLDEN / "videomae_finetune.pth", num_classes=7, **SIZES)
    assert same.head.weight.shape == (7, 36)
    assert capsys.readouterr().out == ""


def test_more_frames_lengthen_the_table():
    model = load_model(GOLDEN / "videomae_finetune.pth", num_frames=32, **SIZES)
    assert torch.equal(model.encoder.positions, sincos(16 * 9, 36))


def test_own_checkpoint_round_trip(tmp_path):
    built = save(tmp_path / "a.ckpt", mae_node())
    loaded = load_model(tmp_path / "a.ckpt")
    assert isinstance(loaded, MaskedModel)
    assert tuple(loaded.preprocess.std) == (0.5, 0.5, 0.5)
    assert built.state_dict().keys() == loaded.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in built.state_dict().items())


def test_ema_weights_are_preferred(tmp_path):
    ema = {f"model.{key}": value + 1 for key, value in build(mae_node()).state_dict().items()}
    save(tmp_path / "a.ckpt", mae_node(), ema_state_dict=ema)
    assert torch.equal(load_model(tmp_path / "a.ckpt").decoder.mask_token, ema["model.decoder.mask_token"])


def test_run_directory_prefers_the_best_checkpoint(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    last = save(tmp_path / "checkpoints" / "last.ckpt", mae_node())
    assert torch.equal(load_model(tmp_path).decoder.mask_token, last.decoder.mask_token)
    best = save(tmp_path / "checkpoints" / "best.ckpt", mae_node())
    assert torch.equal(load_model(tmp_path).decoder.mask_token, best.decoder.mask_token)


def test_another_frame_size_stretches_the_table_and_a_checkpoint_keeps_it(tmp_path):
    save(tmp_path / "a.ckpt", mae_node())
    larger = load_model(tmp_path / "a.ckpt", image_size=64)
    native = sincos(2 * 2 * 2, 24)[0].unflatten(0, (2, 2, 2))
    stretched = torch.nn.functional.interpolate(native.permute(0, 3, 1, 2), (4, 4), mode="bicubic").permute(0, 2, 3, 1)
    assert torch.allclose(larger.encoder.positions, stretched.reshape(1, 32, 24), atol=1e-6)
    node = mae_node(image_size=64)
    state = {f"model.{key}": value for key, value in larger.state_dict().items()}
    torch.save({"state_dict": state, "model_config": node}, tmp_path / "b.ckpt")
    again = load_model(tmp_path / "b.ckpt")
    assert torch.equal(again.encoder.positions, larger.encoder.positions)
    assert torch.equal(again.decoder.positions, larger.decoder.positions)


def test_overrides(tmp_path):
    save(tmp_path / "a.ckpt", mae_node())
    model = load_model(tmp_path / "a.ckpt", num_frames=8, norm_pix_loss=False, drop_path=0.2, dtype=torch.bfloat16)
    assert model.grid.frames == 8
    assert not model.target.normalise
    assert model.encoder.blocks[1].drop_path.rate == 0.2
    assert model.decoder.mask_token.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="unknown override 'frames'"):
        load_model(tmp_path / "a.ckpt", frames=8)
    with pytest.raises(ValueError, match="'norm_pix_loss' has no meaning"):
        load_model(GOLDEN / "videomae_finetune.pth", norm_pix_loss=False, **SIZES)


def test_start_from_checks_what_tensors_do_not_show(tmp_path):
    save(tmp_path / "a.ckpt", mae_node())
    with pytest.raises(ValueError, match="num_heads 2, this model has 3"):
        start_from(build(mae_node(num_heads=3)), tmp_path / "a.ckpt", node=mae_node(num_heads=3))
    node = mae_node()
    del node["preprocess"]
    with pytest.raises(ValueError, match=r"a.ckpt was trained with std .0.5"):
        start_from(build(node), tmp_path / "a.ckpt", node=node | {"preprocess": {"_target_": path_of(Preprocess)}})


def test_start_from_fills_a_classifier_of_another_size(tmp_path, capsys):
    pretrained = save(tmp_path / "a.ckpt", mae_node())
    node = mae_node(image_size=64, num_frames=8, final_norm=False)
    classifier = VideoClassifier(build(node["encoder"]), 3, preprocess=pretrained.preprocess)
    start_from(classifier, tmp_path / "a.ckpt")
    assert torch.equal(classifier.encoder.blocks[0].attn.qkv.weight, pretrained.encoder.blocks[0].attn.qkv.weight)
    assert "fresh    head.weight" in capsys.readouterr().out


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("owned"),))


def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}, "extra": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil.pth contains .*refused"):
        load_model(tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "tubelet.run.main",
        "tubelet.storage.remove",
        "tubelet.weights.load.load_model",
        "tubelet.runtime.run_directory.RunDirectory",
        "tubelet.masking.torch.load",
        "tubelet.masking.inspect.os.remove",
        "tubelet.nowhere.X",
    ],
)
def test_a_file_names_nothing_but_parts_of_models(name):
    for node in ({"_target_": name, "path": "x"}, {"_target_": name, "_partial_": True}):
        with pytest.raises(ValueError, match=re.escape(name)):
            build(node, trusted=[])


def test_paths_that_are_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"holds neither config.json nor checkpoints"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        load_model(tmp_path / "x.ckpt")


def original(width, **sizes):
    """Weights of a VideoMAEv2 pretraining file, random, by the names of the original code."""
    torch.manual_seed(0)
    encoder = VideoViT(dim=width, cosine_attention=True, layer_scale=0.1, **sizes)
    heads = 8 if width == 1408 else 2
    sizes = {"dim": 16, "depth": 1, "num_heads": heads, "layer_scale": 0.1, "cosine_attention": True}
    model = MaskedModel(encoder, partial(SelfAttentionDecoder, **sizes))
    for name, parameter in model.named_parameters():
        if "gamma" in name or name.endswith("scale"):
            torch.nn.init.normal_(parameter)
    theirs = {"decoder.mask_token": "mask_token", "decoder.project.weight": "encoder_to_decoder.weight"}
    weights = {theirs.get(k, k): value for k, value in model.state_dict().items() if not k.endswith("positions")}
    return model.eval(), weights


def test_videomae_v2_file(tmp_path):
    """Giant's width, patch and mlp ratio, one block: cosine attention and layer scale are read off the tensors."""
    sizes = {"patch_size": 14, "num_heads": 16, "mlp_ratio": 48 / 11, "depth": 1}
    model, weights = original(1408, image_size=224, num_frames=4, **sizes)
    torch.save({"model": weights}, tmp_path / "g.pth")
    loaded = load_model(tmp_path / "g.pth", num_frames=4)
    assert loaded.encoder.blocks[0].mlp.fc1.out_features == 6144
    assert loaded.encoder.blocks[0].attn.num_heads == 16
    assert loaded.decoder.blocks[0].attn.num_heads == 8
    assert loaded.encoder.blocks[0].attn.scale.shape == (16, 1, 1)
    hidden = torch.arange(2 * 16 * 16) % 256 >= 16
    clip, mask = torch.randn(1, 3, 4, 224, 224), Mask.from_hidden(hidden[None])
    with torch.no_grad():
        assert torch.equal(loaded(clip, mask).loss, model(clip, mask).loss)


def test_published_widths_were_trained_at_224(tmp_path):
    """Another frame size stretches the table of 14 x 14 patches; more frames lengthen it."""
    model, weights = original(384, image_size=224, num_frames=16, num_heads=6, depth=1)
    torch.save({"model": weights}, tmp_path / "s.pth")
    longer = load_model(tmp_path / "s.pth", num_frames=32, decoder_num_heads=2)
    assert torch.equal(longer.encoder.positions, sincos(16 * 14 * 14, 384))
    larger = load_model(tmp_path / "s.pth", image_size=320, decoder_num_heads=2)
    native = model.encoder.positions[0].unflatten(0, (8, 14, 14)).permute(0, 3, 1, 2)
    stretched = torch.nn.functional.interpolate(native, (20, 20), mode="bicubic").permute(0, 2, 3, 1)
    assert torch.allclose(larger.encoder.positions, stretched.reshape(1, -1, 384), atol=1e-5)


def test_a_checkpoint_of_the_first_edition(tmp_path):
    """One class held the settings of decoder and target, and two weights had other names."""
    built = build(mae_node())
    names = {"decoder.mask_token": "mask_token", "decoder.project.weight": "encoder_to_decoder.weight"}
    state = {f"model.{names.get(key, key)}": value for key, value in built.state_dict().items()}
    node = mae_node()
    settings = {f"decoder_{name.removeprefix('num_')}": value for name, value in DECODER.items()}
    old = {"_target_": "tubelet.models.mae.MaskedAutoencoder", "encoder": node["encoder"], **settings}
    old |= {"norm_pix_loss": False, "preprocess": node["preprocess"]}
    torch.save({"state_dict": state, "model_config": old}, tmp_path / "old.ckpt")
    loaded = load_model(tmp_path / "old.ckpt")
    assert isinstance(loaded, MaskedModel)
    assert (loaded.target.normalise, loaded.decoder.num_heads, loaded.decoder.blocks[0].mlp.fc1.in_features) == (
        False, 2, 12,
    )  # fmt: skip
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in built.state_dict().items())


def test_a_file_of_the_original_code_with_its_arguments(tmp_path):
    weights = torch.load(GOLDEN / "videomae_finetune.pth", weights_only=True)["model"]
    saved = {"model": weights, "epoch": 3, "args": argparse.Namespace(lr=1e-3, output_dir=Path("out"))}
    torch.save(saved, tmp_path / "own.pth")
    expected = load_model(GOLDEN / "videomae_finetune.pth", **SIZES)
    assert torch.equal(load_model(tmp_path / "own.pth", **SIZES).head.weight, expected.head.weight)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "is empty"),
        (b"# a text\n" * 20, "is no file of weights"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ((GOLDEN / "videomae_finetune.pth").read_bytes()[:20000], "is damaged or was not copied to its end"),
        ((40).to_bytes(8, "little") + b'{"x":{"dtype":"F32"}}', "is damaged or was not copied to its end"),
    ],
)
def test_a_file_that_holds_no_weights_says_what_it_is(contents, message, tmp_path):
    (tmp_path / "x.pth").write_bytes(contents)
    with pytest.raises(ValueError, match=rf"x\.pth {message}|x\.pth .*{message}"):
        load_model(tmp_path / "x.pth")


def test_the_encoder_of_a_classifier_that_normalises_after_its_pool(tmp_path):
    node = {
        "_target_": path_of(VideoClassifier), "encoder": mae_node()["encoder"], "num_classes": 3, "pool": "auto",
        "norm_after_pool": True,
    }  # fmt: skip
    classifier = save(tmp_path / "a.ckpt", node).eval()
    clip = torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(load_encoder(tmp_path / "a.ckpt")(clip), classifier.encoder(clip))
