"""TimeSformer against transformers: the same weights give the same numbers, in both directions.

Tokens there are ordered (h w t), ours (t h w).
"""

import pytest
import torch
from transformers import TimesformerConfig, TimesformerForVideoClassification, TimesformerModel

from tubelet.weights.formats.hf_timesformer import HFTimeSformer
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
    "divided": {},
    "joint": {"attention_type": "joint_space_time"},
    "no biases": {"qkv_bias": False},
    "eps": {"layer_norm_eps": 1e-3},
    "frames": {"num_frames": 6},
    "size": {"image_size": 48, "patch_size": 8, "attention_type": "joint_space_time", "num_frames": 2},
    "relu": {"hidden_act": "relu", "intermediate_size": 100, "num_channels": 1},
}


def to_theirs(tokens, t):
    """[B,1+t*S,D] from (t h w) to (h w t)."""
    patches = tokens[:, 1:].unflatten(1, (t, -1)).transpose(1, 2).flatten(1, 2)
    return torch.cat([tokens[:, :1], patches], dim=1)


def to_theirs_twice(weights, t):
    """Attention [B,heads,K,K] likewise."""
    rows = to_theirs(weights.flatten(0, 1), t)
    return to_theirs(rows.transpose(1, 2), t).transpose(1, 2).unflatten(0, weights.shape[:2])


def inputs(config, clip):
    video = clip(2, config.num_channels, config.num_frames, config.image_size, config.image_size)
    return video, video.transpose(1, 2)  # theirs: [B,T,C,H,W]


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS.keys())
def test_classifier(options, foreign, clip, difference, gradient_difference, tmp_path):
    config = TimesformerConfig(**SMALL | options, num_labels=5)
    theirs = foreign(TimesformerForVideoClassification, config)
    ours = load_model(theirs.directory)
    video, pixel_values = inputs(config, clip)
    t = config.num_frames
    expected = theirs(pixel_values, output_hidden_states=True, output_attentions=True, labels=torch.tensor([1, 4]))
    tokens, states, attentions = ours.encoder(video, return_hidden_states=True, return_attentions=True)
    assert difference(ours(video), expected.logits) < 1e-5
    assert difference(to_theirs(tokens, t), theirs.timesformer(pixel_values).last_hidden_state) < 1e-5
    states = [to_theirs(state, t) for state in states]
    assert difference(states, expected.hidden_states) < 1e-5
    if config.attention_type == "joint_space_time":
        attentions = [to_theirs_twice(weights, t) for weights in attentions]
    assert difference(attentions, expected.attentions) < 1e-5

    loss = ours.loss(ours(video), torch.tensor([1, 4]))
    assert abs(loss.item() - expected.loss.item()) < 1e-5
    loss.backward()
    expected.loss.backward()
    assert gradient_difference(ours, theirs, HFTimeSformer()) < 1e-4

    save_pretrained(ours, tmp_path / "ours")
    again, report = TimesformerForVideoClassification.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    assert difference(again.eval()(pixel_values).logits, expected.logits) < 1e-5


def test_space_only_averages_the_frames_as_the_original_does(foreign, clip, difference, tmp_path):
    config = TimesformerConfig(**SMALL, attention_type="space_only", num_labels=5)
    theirs = foreign(TimesformerForVideoClassification, config)
    ours = load_model(theirs.directory)
    video, pixel_values = inputs(config, clip)
    with torch.no_grad():
        expected = theirs(pixel_values, output_hidden_states=True, output_attentions=True)
        tokens, states, attentions = ours.encoder(video, return_hidden_states=True, return_attentions=True)
        assert difference(states, expected.hidden_states) < 1e-5
        assert difference(attentions, expected.attentions) < 1e-5
        frames = expected.hidden_states[-1].unflatten(0, (2, 4))  # [B,T,1+h*w,D]; transformers stops here
        logits = theirs.classifier(theirs.timesformer.layernorm(frames.mean(1))[:, 0])
        assert difference(ours(video), logits) < 1e-5
        assert tokens.shape == (2, 1 + 4 * 4, 48)
        save_pretrained(ours, tmp_path / "ours")
        _, report = TimesformerForVideoClassification.from_pretrained(tmp_path / "ours", output_loading_info=True)
        assert not any(report.values()), report


def test_bare_model(foreign, clip, difference, tmp_path):
    config = TimesformerConfig(**SMALL)
    theirs = foreign(TimesformerModel, config)
    ours = load_model(theirs.directory)
    video, pixel_values = inputs(config, clip)
    with torch.no_grad():
        assert difference(to_theirs(ours(video), 4), theirs(pixel_values).last_hidden_state) < 1e-5
        save_pretrained(ours, tmp_path / "ours")
        again, report = TimesformerModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
        assert not any(report.values()), report
        assert difference(to_theirs(ours(video), 4), again.eval()(pixel_values).last_hidden_state) < 1e-5
