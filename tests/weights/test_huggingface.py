"""Hugging Face directories: both generations of names, both kinds of files, processors, the hub's cache, refusals."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VivitConfig,
    VivitForVideoClassification,
)

from tubelet.encoders.timesformer import TimeSformer
from tubelet.encoders.vit import VideoViT
from tubelet.encoders.vivit import FactorisedViViT, ViViT
from tubelet.models.classifier import VideoClassifier
from tubelet.models.masked import MaskedModel
from tubelet.weights.load import load_model
from tubelet.weights.save import convert, save_pretrained

TINY = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
SIZES = {"image_size": 32, "num_frames": 4}
DECODER = {
    "decoder_hidden_size": 12,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 24,
}
SMALL = {"image_size": 32, "num_frames": 4, "dim": 24, "depth": 2, "num_heads": 2}


@pytest.fixture
def videomae(foreign):
    return foreign(VideoMAEForVideoClassification, VideoMAEConfig(**TINY, **SIZES, num_labels=3)).directory


@pytest.fixture
def vivit(foreign):
    return foreign(VivitForVideoClassification, VivitConfig(**TINY, **SIZES, num_labels=3))


def same(a, b):
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


def rewrite(directory, change):
    path = directory / "model.safetensors"
    save_file(change(load_file(path)), path)


def test_videomae_biases_of_both_spellings(videomae):
    expected = load_model(videomae)
    assert expected.encoder.blocks[0].attn.q_bias.abs().max() > 0

    def respell(state):
        names = {"q_bias": "query.bias", "v_bias": "value.bias"}
        return {
            key.rpartition(".")[0] + "." + names[end] if (end := key.rpartition(".")[2]) in names else key: value
            for key, value in state.items()
        }

    rewrite(videomae, respell)
    assert any(key.endswith("attention.query.bias") for key in load_file(videomae / "model.safetensors"))
    assert same(expected, load_model(videomae))


def test_videomae_biases_are_written_under_both_names(videomae, tmp_path):
    """So that every version of transformers finds its own: 5.10.4 does not know the hub's."""
    save_pretrained(load_model(videomae), tmp_path / "ours")
    state = load_file(tmp_path / "ours" / "model.safetensors")
    for ours, theirs in (("q_bias", "query.bias"), ("v_bias", "value.bias")):
        assert sum(key.endswith(ours) for key in state) == 2
        for key in [key for key in state if key.endswith(ours)]:
            assert torch.equal(state[key], state[key.removesuffix(ours) + theirs])
    assert same(load_model(videomae), load_model(tmp_path / "ours"))
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert (config["qv_bias"], config["qkv_bias"]) == (True, True)


def test_a_bias_on_the_keys_of_videomae_changes_nothing(videomae, clip):
    """transformers 5.10.4 writes one, and the softmax ignores it."""
    expected = load_model(videomae)

    def with_key_bias(state):
        new = {key.replace("q_bias", "key.bias"): value + 1 for key, value in state.items() if key.endswith("q_bias")}
        return {**state, **new}

    rewrite(videomae, with_key_bias)
    assert same(expected, load_model(videomae))


def test_two_spellings_of_one_weight_must_agree(videomae):
    def contradict(state):
        return {**state, **{k.replace("q_bias", "query.bias"): v + 1 for k, v in state.items() if "q_bias" in k}}

    rewrite(videomae, contradict)
    with pytest.raises(ValueError, match=r"query.bias and .*q_bias are two names of one weight"):
        load_model(videomae)


def test_biases_of_a_third_spelling_are_an_error_that_lists_them(videomae):
    rewrite(videomae, lambda state: {key.replace("q_bias", "query_bias"): value for key, value in state.items()})
    with pytest.raises(ValueError) as error:
        load_model(videomae)
    for i in range(2):
        assert f"unexpected key videomae.encoder.layer.{i}.attention.attention.query_bias" in str(error.value)
        assert f"missing key encoder.blocks.{i}.attn.q_bias" in str(error.value)


def test_vivit_names_of_both_generations(vivit):
    expected = load_model(vivit.directory)
    save_file(vivit.state_dict(), vivit.directory / "model.safetensors")  # as modules are called in memory
    assert any(".q_proj." in key for key in load_file(vivit.directory / "model.safetensors"))
    assert same(expected, load_model(vivit.directory))


def test_bin_files_and_shards(videomae):
    expected = load_model(videomae)
    state = load_file(videomae / "model.safetensors")
    (videomae / "model.safetensors").unlink()
    torch.save(state, videomae / "pytorch_model.bin")
    assert same(expected, load_model(videomae))
    (videomae / "pytorch_model.bin").unlink()
    shards = {"a.safetensors": sorted(state)[:5], "b.safetensors": sorted(state)[5:]}
    for name, keys in shards.items():
        save_file({key: state[key] for key in keys}, videomae / name)
    weight_map = {key: name for name, keys in shards.items() for key in keys}
    (videomae / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert same(expected, load_model(videomae))


def test_a_malicious_bin_is_refused(videomae):
    (videomae / "model.safetensors").unlink()
    torch.save({"x": transformers.VideoMAEConfig()}, videomae / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin contains .*refused"):
        load_model(videomae)


def test_old_config_names(videomae):
    config = json.loads((videomae / "config.json").read_text())
    config["qkv_bias"] = config.pop("qv_bias")
    (videomae / "config.json").write_text(json.dumps(config))
    assert load_model(videomae).encoder.blocks[0].attn.q_bias is not None


def processor(directory, **contents):
    (directory / "preprocessor_config.json").write_text(json.dumps(contents))
    return load_model(directory).preprocess


def test_processor_files(videomae, vivit):
    published = load_model(videomae).preprocess  # no file
    assert published.mean == (0.485, 0.456, 0.406)
    assert published.short_side is None
    old = processor(
        videomae, size=40, feature_extractor_type="VideoMAEFeatureExtractor", image_mean=[0.5] * 3, image_std=[0.25] * 3
    )
    assert (old.short_side, old.mean, old.std, old.scale) == (40, (0.5,) * 3, (0.25,) * 3, 1 / 255)
    new = processor(vivit.directory, size={"shortest_edge": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    assert (new.short_side, new.scale, new.offset) == (None, 1 / 127.5, 1.0)


@pytest.mark.parametrize("offset", [True, False])
def test_vivit_pixels_are_those_of_its_processor(vivit, offset):
    theirs = transformers.VivitImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}, offset=offset
    )
    theirs.save_pretrained(vivit.directory)
    frames = torch.randint(0, 256, (4, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    expected = theirs([list(frames.numpy())], do_resize=False, return_tensors="pt").pixel_values[0]  # [T,C,H,W]
    ours = load_model(vivit.directory).preprocess.normalise(frames.permute(3, 0, 1, 2)[None])[0]  # [C,T,H,W]
    assert torch.allclose(ours.transpose(0, 1), expected, atol=1e-6)


def test_class_names_survive_the_round_trip(videomae, tmp_path):
    model = load_model(videomae)
    assert model.id2label is None
    model.id2label = {0: "a", 1: "b", 2: "c"}
    save_pretrained(model, tmp_path / "named")
    assert load_model(tmp_path / "named").id2label == {0: "a", 1: "b", 2: "c"}
    theirs = VideoMAEForVideoClassification.from_pretrained(tmp_path / "named")
    assert theirs.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_processor_is_written_for_transformers(videomae, tmp_path):
    save_pretrained(load_model(videomae), tmp_path / "ours")
    theirs = transformers.VideoMAEImageProcessor.from_pretrained(tmp_path / "ours")
    assert list(theirs.image_mean) == [0.485, 0.456, 0.406]
    assert dict(theirs.crop_size) == {"height": 32, "width": 32}
    assert load_model(tmp_path / "ours").preprocess == load_model(videomae).preprocess


def test_hub_ids_come_from_the_local_cache(videomae, tmp_path, monkeypatch):
    cache = tmp_path / "hub" / "models--somebody--videomae-tiny"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    (cache / "snapshots").mkdir()
    videomae.rename(cache / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert isinstance(load_model("somebody/videomae-tiny"), VideoClassifier)
    with pytest.raises(ValueError, match="somebody/else is no file or directory, and could not be fetched"):
        load_model("somebody/else")


@pytest.mark.parametrize("sizes", [{"num_frames": 8}, {"image_size": 48}, {"num_frames": 8, "image_size": 64}])
@pytest.mark.parametrize("family", ["videomae", "vivit", "timesformer"])
def test_other_clip_sizes_are_one_override(family, sizes, foreign):
    cls, config = {
        "videomae": (VideoMAEForVideoClassification, VideoMAEConfig),
        "vivit": (VivitForVideoClassification, VivitConfig),
        "timesformer": (TimesformerForVideoClassification, TimesformerConfig),
    }[family]
    directory = foreign(cls, config(**TINY, **SIZES, num_labels=3)).directory
    model, native = load_model(directory, **sizes), load_model(directory)
    grid = model.grid
    assert model(torch.zeros(1, 3, grid.frames, grid.height, grid.width)).shape == (1, 3)
    if family != "videomae":  # the class token keeps its place
        assert torch.equal(model.encoder.positions[:, :1], native.encoder.positions[:, :1])
    same_size = load_model(directory, num_frames=4, image_size=32)
    assert torch.equal(same_size.encoder.positions, native.encoder.positions)


def test_pretraining_directory_becomes_a_classifier(foreign, capsys):
    config = VideoMAEConfig(**TINY, **SIZES, **DECODER, use_mean_pooling=False)
    model = load_model(foreign(VideoMAEForPreTraining, config).directory, num_classes=4)
    assert isinstance(model, VideoClassifier)
    assert isinstance(model.encoder.norm, torch.nn.Identity)
    printed = capsys.readouterr().out
    assert "dropped  encoder.norm.weight" in printed
    assert "fresh    fc_norm.weight" in printed


def test_original_file_to_hugging_face(tmp_path):
    """Through `convert`: eps 1e-6 of the original, 1e-5 in transformers' decoder.norm, hence 1e-4."""
    from pathlib import Path

    import numpy as np

    golden = Path(__file__).parents[1] / "golden"
    sizes = {"image_size": 48, "num_heads": 3}
    arrays = np.load(golden / "videomae_pretrain.npz")
    pixel_values = torch.from_numpy(arrays["clip"]).float().transpose(1, 2)
    convert(golden / "videomae_pretrain.pth", tmp_path / "pretraining", decoder_num_heads=3, **sizes)
    theirs = VideoMAEForPreTraining.from_pretrained(tmp_path / "pretraining").eval()
    with torch.no_grad():
        out = theirs(pixel_values, bool_masked_pos=torch.from_numpy(arrays["hidden"]))
    assert np.abs(out.logits.numpy() - arrays["pixels"]).max() < 1e-4
    assert abs(out.loss.item() - arrays["loss"]) < 1e-4

    arrays = np.load(golden / "videomae_finetune.npz")
    pixel_values = torch.from_numpy(arrays["clip"]).float().transpose(1, 2)
    convert(golden / "videomae_finetune.pth", tmp_path / "classifier", **sizes)
    theirs = VideoMAEForVideoClassification.from_pretrained(tmp_path / "classifier").eval()
    with torch.no_grad():
        assert np.abs(theirs(pixel_values).logits.numpy() - arrays["logits"]).max() < 1e-4


REFUSED = {
    "cosine attention": lambda: VideoClassifier(VideoViT(**SMALL, cosine_attention=True, final_norm=False), 2),
    "layer scale": lambda: VideoViT(**SMALL, layer_scale=0.1),
    "learned positions": lambda: VideoViT(**SMALL, position="learned"),
    "a FactorisedViViT": lambda: FactorisedViViT(**SMALL),
    "a MaskedModel of vivit": lambda: MaskedModel(ViViT(**SMALL)),
    "a MaskedModel of timesformer": lambda: MaskedModel(TimeSformer(**SMALL)),
    "attentive pooling": lambda: VideoClassifier(ViViT(**SMALL), 2, pool="attentive", pool_heads=2),
    "a ViViT that pools by other than cls": lambda: VideoClassifier(ViViT(**SMALL), 2),
    "a TimeSformer of 32x48": lambda: TimeSformer(**SMALL | {"image_size": (32, 48)}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_format_cannot_hold_is_refused_by_name(what, tmp_path):
    with pytest.raises(ValueError, match=f"cannot hold {what}"):
        save_pretrained(REFUSED[what](), tmp_path / "x", format="transformers")
    assert not (tmp_path / "x").exists()


def test_stretched_positions_are_refused(videomae, tmp_path):
    with pytest.raises(ValueError, match=r"cannot hold encoder.positions other than VideoMAE's table"):
        save_pretrained(load_model(videomae, image_size=48), tmp_path / "x", format="transformers")


def test_other_models_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="has model_type 'bert', expected one of videomae, vivit, timesformer"):
        load_model(tmp_path)
