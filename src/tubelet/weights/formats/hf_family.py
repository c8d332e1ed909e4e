"""The differences between the three systems in Hugging Face's format: names, configs, defaults. One subclass each."""

from __future__ import annotations

from typing import Any

from torch import nn

from tubelet.encoders.base import Encoder
from tubelet.nodes import Node
from tubelet.weights.formats.keymap import Row
from tubelet.weights.source import State


class Family:
    """model_type     as in config.json
    encoder        our encoder class
    classes        our model class -> class of transformers
    bare           class of transformers for an encoder alone
    prefix         of the names of the encoder's weights
    rows           pairs of our names and theirs
    spellings      (regular expression, replacement) pairs, for files that spell the same name in another way
    preprocess     preprocessing of the published weights, used if there is no preprocessor_config.json
    processor      class of transformers that prepares pixels
    takes_offset   whether that class can subtract 1 after scaling
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
        """The arguments of VideoClassifier that say how a classifier of this family pools."""
        return {"pool": "cls", "fc_norm": False}

    def pretraining_node(self, config: Node, encoder: Node) -> Node:
        raise ValueError(f"Hugging Face has no masked autoencoder of {self.model_type}")

    def bare_node(self, config: Node, encoder: Node, state: State) -> Node:
        return encoder

    def describe(self, model: nn.Module) -> Node:
        """The config of one of our models. Raises ValueError naming what this format cannot hold."""
        raise NotImplementedError

    def weights_in(self, state: State) -> State:
        """Convert their tensors to our shapes, where they differ. The names are still theirs."""
        return state

    def weights_out(self, state: State) -> State:
        """The inverse of `weights_in`."""
        return state
