from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tubelet.callbacks import throughput
from tubelet.callbacks.throughput import Throughput


def test_rates_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(throughput, "perf_counter", lambda: now)
    logged: dict[str, list[float]] = {"clips_per_s": [], "data_wait": []}
    module: Any = SimpleNamespace(
        device=torch.device("cpu"), log=lambda name, value, **_: logged[name].append(round(value, 6))
    )
    loader = SimpleNamespace(waited=0.0)
    trainer: Any = SimpleNamespace(world_size=2, train_dataloader=loader)
    batch: Any = SimpleNamespace(clip=[None] * 5)
    callback = Throughput(warmup=1, window=4)
    for epoch in range(2):
        callback.on_train_epoch_start(trainer, module)
        for step in range(3):
            wait = 100.0 if epoch == step == 0 else 1.0  # the first, slow wait is dropped with the warm-up
            loader.waited += wait
            now += wait + 3.0
            callback.on_train_batch_end(trainer, module, None, batch, step)
        now += 1000.0  # validation
        loader.waited += 500.0
    # four steps of five clips on two devices, each waiting 1 s and working 3 s, over the end of an epoch
    assert logged == {"clips_per_s": [2.5], "data_wait": [0.25]}
