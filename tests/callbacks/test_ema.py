from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from tubelet import run
from tubelet.callbacks.ema import EMA
from tubelet.weights.load import load_model


def test_checkpoints_hold_the_average_and_the_raw_weights(tiny: Callable[..., DictConfig]) -> None:
    cfg = tiny("trainer.max_epochs=1", "optim.warmup_epochs=0", method="scratch")
    cfg.callbacks.ema = {"_target_": "tubelet.callbacks.ema.EMA", "decay": 0.5}
    run.main(cfg)
    (directory,) = Path("runs/try").iterdir()
    saved = torch.load(directory / "checkpoints" / "best.ckpt", weights_only=True)
    name = "model.head.weight"
    assert not torch.equal(saved["state_dict"][name], saved["current_model_state"][name])
    assert torch.equal(load_model(directory).head.weight, saved["state_dict"][name])


def test_a_decay_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ema\.decay must lie in \(0, 1\), got 1"):
        EMA(decay=1.0)
