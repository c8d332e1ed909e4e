"""VideoMAE against transformers: the same weights give the same numbers, in both directions."""

import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel

from tubelet.masking import Mask
from tubelet.weights.formats.hf_videomae import HFVideoMAE
from tubelet.weights.load import load_model
from tubelet.weights.save import save_pretrained

SMALL = {
    "image_size": 32,
    "num_frames": 4,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "decoder_hidden_size": 24,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 60,
}
CONFIGS = {
    "defaults": {},
    "first token": {"use_mean_pooling": False},
    "no biases": {"qv_bias": False},
    "eps": {"layer_norm_eps": 1e-3, "use_mean_pooling": False},
    "frames": {"num_frames": 6, "tubelet_size": 3},
    "size": {"image_size": [32, 48], "patch_size": 8},
    "relu": {"hidden_act": "relu", "intermediate_size": 100},
    "gelu_new": {"hidden_act": "gelu_new", "tubelet_size": 1},
    "selu": {"hidden_act": "selu", "num_attention_heads": 2},
    "one channel": {"num_channels": 1},
    "four channels": {"num_channels": 4, "use_mean_pooling": False},
}


def inputs(config, clip):
    size = config.image_size if isinstance(config.image_size, list) else [config.image_size] * 2
    video = clip(2, config.num_channels, config.num_frames, *size)
    return video, video.transpose(1, 2)  # theirs: [B,T,C,H,W]


def a_mask(model):
    """bool [2,N], half hidden."""
    generator = torch.Generator().manual_seed(2)
    return torch.stack([torch.randperm(model.grid.N, generator=generator) < model.grid.N // 2 for _ in range(2)])


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS.keys())
def test_classifier(options, foreign, clip, difference, tmp_path):
    config = VideoMAEConfig(**SMALL | options, num_labels=5)
    theirs = foreign(VideoMAEForVideoClassification, config)
    ours = load_model(theirs.directory)
    video, pixel_values = inputs(config, clip)
    with torch.no_grad():
        expected = theirs(pixel_values, output_hidden_states=True, output_attentions=True)
        tokens, states, attentions = ours.encoder(video, return_hidden_states=True, return_attentions=True)
        assert difference(ours(video), expected.logits) < 1e-5
        assert difference(tokens, theirs.videomae(pixel_values).last_hidden_state) < 1e-5
        assert difference(states, expected.hidden_states) < 1e-5
        assert difference(attentions, expected.attentions) < 1e-5
        save_pretrained(ours, tmp_path / "ours")
        again, report = VideoMAEForVideoClassification.from_pretrained(tmp_path / "ours", output_loading_info=True)
        assert not any(report.values()), report
        assert difference(again.eval()(pixel_values).logits, expected.logits) < 1e-5


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_pretraining(options, norm_pix_loss, foreign, clip, difference, gradient_difference, tmp_path):
    if not norm_pix_loss and options.get("num_channels", 3) != 3:
        pytest.skip("raw pixels exist for 3 channels only there")
    config = VideoMAEConfig(**SMALL | options, norm_pix_loss=norm_pix_loss)
    theirs = foreign(VideoMAEForPreTraining, config)
    ours = load_model(theirs.directory)
    video, pixel_values = inputs(config, clip)
    hidden = a_mask(ours)
    expected = theirs(pixel_values, bool_masked_pos=hidden)
    out = ours(video, Mask.from_hidden(hidden))
    assert difference(out.pixels, expected.logits) < 1e-5
    assert abs(out.loss.item() - expected.loss.item()) < 1e-5

    expected.loss.backward()
    out.loss.backward()
    assert gradient_difference(ours, theirs, HFVideoMAE()) < 1e-4

    save_pretrained(ours, tmp_path / "ours")
    again, report = VideoMAEForPreTraining.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    again = again.eval()(pixel_values, bool_masked_pos=hidden)
    assert abs(again.loss.item() - expected.loss.item()) < 1e-5
    assert difference(again.logits, expected.logits) < 1e-5


@pytest.mark.parametrize("mean_pooling", [True, False])
def test_bare_model(mean_pooling, foreign, clip, difference, tmp_path):
    config = VideoMAEConfig(**SMALL, use_mean_pooling=mean_pooling)
    theirs = foreign(VideoMAEModel, config)
    ours = load_model(theirs.directory)
    video, pixel_values = inputs(config, clip)
    with torch.no_grad():
        assert difference(ours(video), theirs(pixel_values).last_hidden_state) < 1e-5
        save_pretrained(ours, tmp_path / "ours")
        again, report = VideoMAEModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
        assert not any(report.values()), report
        assert difference(ours(video), again.eval()(pixel_values).last_hidden_state) < 1e-5


def test_regression_loss(foreign, clip):
    config = VideoMAEConfig(**SMALL, num_labels=1)
    theirs = foreign(VideoMAEForVideoClassification, config)
    ours = load_model(theirs.directory)
    video, pixel_values = inputs(config, clip)
    label = torch.tensor([0.3, -2.0])
    expected = torch.nn.functional.mse_loss(theirs(pixel_values).logits[:, 0], label)
    assert abs(ours.loss(ours(video), label).item() - expected.item()) < 1e-5
