"""What differs between the systems in Hugging Face's format: names, configs and defaults. One subclass each."""

from __future__ import annotations

from typing import Any

from torch import nn

from tubelet.encoders.base import Encoder
from tubelet.nodes import Node
from tubelet.weights.formats.keymap import Row
from tubelet.weights.source import State


class Family:
    """model_type     as in config.json
    encoder        the class that describes it here
    classes        model class here -> class of transformers; `bare` for an encoder alone
    prefix         of the names of the encoder's weights
    rows           our names beside theirs
    spellings      (regular expression, replacement) pairs: files that spell the same name in another way
    preprocess     what the published weights expect, where there is no preprocessor_config.json
    processor      class of transformers that prepares pixels; `takes_offset`: whether it can take 1 off after scaling
    """

    model_type: str
    encoder: type[Encoder]
    classes: dict[type, str]
    bare: str
    prefix: str
    rows: list[Row]
    spellings: list[tuple[str, str]] = []
    preprocess: dict[str, Any] = {}
    processor: str = "VideoMAEImageProcessor"
    takes_offset: bool = False

    def encoder_node(self, config: Node) -> Node:
        raise NotImplementedError

    def head_node(self, config: Node) -> Node:
        """How a classifier of this family pools."""
        return {"pool": "cls", "fc_norm": False}

    def pretraining_node(self, config: Node, encoder: Node) -> Node:
        raise ValueError(f"Hugging Face has no masked autoencoder of {self.model_type}")

    def bare_node(self, config: Node, encoder: Node, state: State) -> Node:
        return encoder

    def describe(self, model: nn.Module) -> Node:
        """The config of a model of ours. Raises ValueError naming what this format cannot hold."""
        raise NotImplementedError

    def weights_in(self, state: State) -> State:
        """Their tensors -> ours, where shapes differ; by their names."""
        return state

    def weights_out(self, state: State) -> State:
        return state
