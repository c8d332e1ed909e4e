"""Encoder and preprocessing of a run that starts from weights are those of the weights, where nobody has chosen others.
An evaluation takes decoder and target from them, too: it needs every part as it was trained.

So `experiment=finetune_small weights=PATH` needs no `encoder=`. What somebody did set is kept: a key of the command
line or of an experiment file (`encoder.drop_path=0.2`, `encoder.image_size=320`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tubelet.nodes import Node, arguments, check_trusted, parameters_of, trusted_target
from tubelet.weights.source import Source

_OF_TRAINING = ("drop_path", "dropout", "attention_dropout", "pooler_dim")
"""Settings of an encoder that belong to a run and not to weights. No method trains a pooler."""
_PIXELS = ("mean", "std", "scale", "offset", "short_side", "size", "interpolation")
"""Settings of the preprocessing that belong to weights. The others say how clips are sampled, which `data` decides."""


def encoder_of(source: Source, config: Node, file: Node, trust: Collection[str]) -> Node:
    """The node of the encoder of `source`, with what was set in `config` beyond the yaml file of its group, `file`.

    Raises ValueError, naming the key, for a setting that this encoder does not have, or that the weights lack.
    """
    check_trusted(source.encoder, trust)
    theirs = arguments(source.encoder, trust)
    known = parameters_of(trusted_target(source.encoder, trust))
    same_class = theirs["_target_"] == config["_target_"]
    own = {key: value for key, value in config.items() if key != "_target_" and value != file.get(key)}
    if foreign := [key for key in own if key not in known and key not in _OF_TRAINING]:
        raise ValueError(
            f"encoder.{foreign[0]} is set, but {source.name} holds a {_class(theirs)}, which has no such setting: "
            "choose the encoder, too (encoder=...)"
        )
    if theirs.get("num_heads", 0) is None and "num_heads" not in own:
        raise ValueError(
            f"{source.name} does not contain its number of attention heads: set encoder.num_heads "
            f"(width {theirs['dim']})"
        )
    kept = {key: config[key] for key in _OF_TRAINING if key in config and key in known}
    unknown = {key: config[key] for key in known if theirs.get(key) is None and same_class and key in config}
    theirs = {key: value for key, value in theirs.items() if key in known and key not in _OF_TRAINING}
    theirs = {key: value for key, value in theirs.items() if value is not None}
    return {"_target_": source.encoder["_target_"], **theirs, **unknown, **kept, **own}


def preprocess_of(source: Source, config: Node, file: Node, trust: Collection[str]) -> Node:
    """The node of the preprocessing of `source`, with what was set in `config` beyond its file, and its sampling."""
    node = source.node.get("preprocess")
    if node is None or node["_target_"] != config["_target_"]:
        return config
    check_trusted(node, trust)
    theirs = arguments(node, trust)
    if source.unsupported:  # nothing is known of the geometry, which the config then decides
        theirs = {key: theirs[key] for key in ("mean", "std", "scale", "offset")}
    own = {key: value for key, value in config.items() if value != file.get(key)}
    taken = {key: _plain(theirs[key]) for key in _PIXELS if key in theirs}
    return {**config, **taken, **own}


def whole_of(group: str, source: Source, config: Node, file: Node, trust: Collection[str]) -> Node:
    """The node of the decoder or target (`group`) of `source`, with the keys that the command line names; weights
    without one leave `config`.
    """
    theirs = source.node.get(group)
    if theirs is None:
        return config
    check_trusted(theirs, trust)
    return {**theirs, **{key: config[key] for key in config if key not in file}}


def changes(before: Node, after: Node) -> list[str]:
    """`dim 1024 (not 768)` for each setting of `after` that `before` has otherwise."""
    settings = [key for key in after if key != "_target_" and key in before and before[key] != after[key]]
    named = [f"{key} {after[key]} (not {before[key]})" for key in settings]
    other = before["_target_"] != after["_target_"]
    return [f"a {_class(after)} (not a {_class(before)})", *named] if other else named


def _class(node: Node) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def _plain(value: Any) -> Any:
    """Tuples as lists, because yaml has no tuples."""
    return list(value) if isinstance(value, tuple) else value
