"""ViViT against transformers: the same weights give the same numbers, in both directions."""

import pytest
import torch
from transformers import VivitConfig, VivitForVideoClassification, VivitModel

from tubelet.weights.formats.hf_vivit import HFViViT
from tubelet.weights.load import load_model
from tubelet.weights.save import save_pretrained

SMALL = {
    "image_size": 32,
    "num_frames": 4,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
}
CONFIGS = {
    "defaults": {},
    "no biases": {"qkv_bias": False},
    "eps": {"layer_norm_eps": 1e-3},
    "frames": {"num_frames": 6, "tubelet_size": [3, 16, 16]},
    "size": {"image_size": [32, 48], "tubelet_size": [2, 8, 8]},
    "relu": {"hidden_act": "relu", "intermediate_size": 100},
    "gelu": {"hidden_act": "gelu", "num_attention_heads": 2},
    "one channel": {"num_channels": 1, "initializer_range": 0.1},
}


def inputs(config, clip):
    size = config.image_size if isinstance(config.image_size, list) else [config.image_size] * 2
    video = clip(2, config.num_channels, config.num_frames, *size)
    return video, video.transpose(1, 2)  # theirs: [B,T,C,H,W]


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS.keys())
def test_classifier(options, foreign, clip, difference, gradient_difference, tmp_path):
    config = VivitConfig(**SMALL | options, num_labels=5)
    theirs = foreign(VivitForVideoClassification, config)
    ours = load_model(theirs.directory)
    video, pixel_values = inputs(config, clip)
    expected = theirs(pixel_values, output_hidden_states=True, output_attentions=True, labels=torch.tensor([1, 4]))
    tokens, states, attentions = ours.encoder(video, return_hidden_states=True, return_attentions=True)
    assert difference(ours(video), expected.logits) < 1e-5
    assert difference(tokens, theirs.vivit(pixel_values).last_hidden_state) < 1e-5
    assert difference(states, expected.hidden_states) < 1e-5
    assert difference(attentions, expected.attentions) < 1e-5

    loss = ours.loss(ours(video), torch.tensor([1, 4]))
    assert abs(loss.item() - expected.loss.item()) < 1e-5
    loss.backward()
    expected.loss.backward()
    assert gradient_difference(ours, theirs, HFViViT()) < 1e-4

    save_pretrained(ours, tmp_path / "ours")
    again, report = VivitForVideoClassification.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    assert difference(again.eval()(pixel_values).logits, expected.logits) < 1e-5


@pytest.mark.parametrize("options", [{}, {"pooler_output_size": 20, "pooler_act": "relu"}], ids=["tanh", "relu"])
def test_bare_model_and_its_pooler(options, foreign, clip, difference, tmp_path):
    config = VivitConfig(**SMALL | options)
    theirs = foreign(VivitModel, config)
    ours = load_model(theirs.directory)
    video, pixel_values = inputs(config, clip)
    with torch.no_grad():
        expected = theirs(pixel_values)
        assert difference(ours(video), expected.last_hidden_state) < 1e-5
        assert difference(ours.pooler(ours(video)), expected.pooler_output) < 1e-5
        save_pretrained(ours, tmp_path / "ours")
        again, report = VivitModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
        assert not any(report.values()), report
        assert difference(again.eval()(pixel_values).pooler_output, expected.pooler_output) < 1e-5
