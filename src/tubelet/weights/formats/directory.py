"""The directory of any model of this project: config.json (`model_type: tubelet`), model.safetensors, and
preprocessor_config.json. It is for what transformers has no class for. No file in it is a pickle.

config.json holds the node of the model, as a checkpoint does: what it may name is limited in the same way
(tubelet.nodes). preprocessor_config.json holds the settings of `Preprocess`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import nn

from tubelet.data.transforms import Preprocess
from tubelet.models.base import encoder_of
from tubelet.nodes import Described, Node, describe, path_of
from tubelet.weights.formats import hf_processor
from tubelet.weights.formats.base import Files, Found
from tubelet.weights.source import Source, State, read_json, read_weights

MODEL_TYPE = "tubelet"


class Directory:
    """Every class of model, encoder, decoder and target, those of a user's own package included."""

    def reads(self, found: Found) -> bool:
        return found.is_directory and read_json(found.path / "config.json").get("model_type") == MODEL_TYPE

    def read(self, found: Found) -> Source:
        config = read_json(found.path / "config.json")
        node = config.get("model")
        if not isinstance(node, dict) or "_target_" not in node:
            raise ValueError(f"{found.path / 'config.json'} lacks 'model', the description of the model")
        weights = found.path / "model.safetensors"
        if not weights.is_file():
            raise ValueError(f"{found.path} holds no model.safetensors, which belongs to its config.json: fetch it")
        state = read_weights(weights)
        if "encoder" not in node:  # an encoder alone: its weights have no prefix
            state = {f"encoder.{key}": value for key, value in state.items()}
        preprocess = {"_target_": path_of(Preprocess), **read_json(found.path / hf_processor.NAME)}
        normed = bool(config.get("normed", True))
        return Source(str(found.path), {**node, "preprocess": preprocess}, state, config.get("masking"), normed=normed)

    def write(self, model: nn.Module) -> Files:
        """Raises ValueError if the model is none of tubelet, or was built with an object that is no plain data."""
        if not isinstance(model, Described):
            raise ValueError(f"a {type(model).__name__} is no model of tubelet")
        preprocess: Preprocess = getattr(model, "preprocess", None) or Preprocess()
        node: Node = describe(model, type(model).__name__)
        node.pop("preprocess", None)
        config = {
            "architectures": [type(model).__name__],
            "model_type": MODEL_TYPE,
            "model": node,
            # a classifier may have taken the norm off an encoder that was built with one
            "normed": not isinstance(encoder_of(model).norm, nn.Identity),
        }
        return Files(_apart(model.state_dict()), config, asdict(preprocess))


def _apart(state: dict[str, Any]) -> State:
    """The tensors on the CPU, none in the memory of another: a safetensors file cannot hold that."""
    seen: set[int] = set()
    apart: State = {}
    for key, value in state.items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        apart[key] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart
