"""VideoMAEv2 as its authors publish it on the hub: a directory whose config.json names their own code.

https://huggingface.co/OpenGVLab/VideoMAEv2-Base and its sisters. `model_type` is VideoMAEv2_Base and the like, the
sizes are in `model_config`, and the names of the weights are those of the original code behind `model.`. Nothing of the
code in such a directory runs here. They hold an encoder without a head: what follows its pool, `fc_norm`, is dropped
unless a classifier is started from them.
"""

from __future__ import annotations

from tubelet.nodes import Node
from tubelet.weights.formats import hf_processor
from tubelet.weights.formats.base import Found
from tubelet.weights.formats.hf_files import read_state
from tubelet.weights.formats.hf_videomae import HFVideoMAE
from tubelet.weights.formats.mcg_nju import source_of
from tubelet.weights.source import Source, read_json
from tubelet.weights.unwrap import table_of

_SIZES = {
    "img_size": "image_size",
    "num_frames": "num_frames",
    "all_frames": "num_frames",
    "num_heads": "num_heads",
    "layer_norm_eps": "eps",
    "drop_rate": "dropout",
    "attn_drop_rate": "attention_dropout",
    "drop_path_rate": "drop_path",
}
"""Their name -> ours, for what the tensors do not show."""


class VideoMAEv2:
    """An encoder, or a VideoClassifier if there is a head."""

    def reads(self, found: Found) -> bool:
        return found.is_directory and str(_config(found).get("model_type", "")).lower().startswith("videomaev2")

    def read(self, found: Found) -> Source:
        name, settings = str(found.path), _config(found).get("model_config")
        if not isinstance(settings, dict) or "num_heads" not in settings:
            raise ValueError(f"{found.path / 'config.json'} lacks model_config.num_heads, which no tensor shows")
        source = source_of(name, table_of(name, read_state(found)))
        source.encoder.update({ours: settings[theirs] for theirs, ours in _SIZES.items() if theirs in settings})
        preprocess, unsupported = hf_processor.read(found.path, HFVideoMAE(), source.encoder)
        return Source(name, {**source.node, "preprocess": preprocess}, source.state, unsupported=unsupported)


def _config(found: Found) -> Node:
    return read_json(found.path / "config.json")
