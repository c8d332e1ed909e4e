"""Checkpoints of this project. Each contains the config of its model, so it loads wherever it is moved."""

from __future__ import annotations

from typing import Any

from tubelet.weights.adapters import joined
from tubelet.weights.formats import first_edition
from tubelet.weights.formats.base import Found
from tubelet.weights.source import Source, clean_keys


class Checkpoint:
    """A `.ckpt`, or the contents of a sharded one."""

    def reads(self, found: Found) -> bool:
        return isinstance(found.contents, dict) and "model_config" in found.contents

    def read(self, found: Found) -> Source:
        """Read the checkpoint: its averaged weights (EMA) if it has them, else its weights. Adapters are joined with
        the weights that they change.
        """
        contents = found.contents
        weights = contents.get("ema_state_dict") or contents.get("state_dict")
        if not weights:
            raise ValueError(f"{found.path} holds no 'state_dict'")
        state = {
            key.removeprefix("model."): value for key, value in clean_keys(weights).items() if _of_model(key, weights)
        }
        state = joined(state, contents.get("adapter_scale"), str(found.path))
        # checkpoints of version 0.1 describe their model in another way
        source = Source(str(found.path), contents["model_config"], state, contents.get("masking_config"))
        return first_edition.upgraded(source)


def _of_model(key: str, weights: dict[str, Any]) -> bool:
    """Whether a weight belongs to the model. A LightningModule may hold other things, for example a metric."""
    return key.startswith("model.") or not any(name.startswith("model.") for name in weights)
