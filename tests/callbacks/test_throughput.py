from functools import partial
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from tubelet import run
from tubelet.bench.scale import cost
from tubelet.callbacks import throughput
from tubelet.callbacks.throughput import Throughput
from tubelet.layers import switches
from tubelet.masking import tube
from tubelet.methods.base import StepResult
from tubelet.methods.pretraining import Pretraining
from tubelet.nodes import build
from tubelet.runtime.peaks import peak_tflops


def test_rates_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(throughput, "perf_counter", lambda: now)
    monkeypatch.setattr(throughput, "count", lambda _: 4e12)
    logged: dict[str, list[float]] = {"clips_per_s": [], "data_wait": [], "tflops": []}
    module: Any = SimpleNamespace(
        device=torch.device("cpu"), log=lambda name, value, **_: logged[name].append(round(float(value), 6))
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
    assert logged == {"clips_per_s": [2.5], "data_wait": [0.25], "tflops": [5.0]}


@pytest.mark.parametrize("more", [[], ["trainer.compile=true"], ["trainer.strategy=fsdp"]])
def test_a_run_counts_the_operations_of_its_step(tiny: Any, more: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[float] = []

    def counting(trainer: L.Trainer) -> float | None:
        counts.append(throughput_count(trainer) or 0.0)
        return counts[-1]

    throughput_count = throughput.count
    monkeypatch.setattr(throughput, "count", counting)
    config = tiny("callbacks.throughput.warmup=1", "callbacks.throughput.window=1", "trainer.max_steps=2", *more)
    if "trainer.compile=true" in more:  # as the switch, without a compiler
        monkeypatch.setattr(switches, "_compiled", lambda forward: forward)
    metrics = run.main(config)
    if torch.distributed.is_initialized():  # by fsdp
        torch.distributed.destroy_process_group()
    model = build_model_of(config)
    assert counts == [cost(model, partial(tube, ratio=0.5)).flops]
    assert metrics["tflops"] == pytest.approx(metrics["clips_per_s"] * counts[0] / 1e12)
    assert "mfu" not in metrics  # nobody knows the peak of a CPU


def build_model_of(config: DictConfig) -> Any:
    return build(OmegaConf.to_container(config.model, resolve=True)).train()


def test_a_step_that_reads_values_is_not_counted(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: Pretraining, batch: Any) -> StepResult:
        result = original(self, batch)
        return StepResult(result.loss * (1.0 if float(result.loss) > 0 else 2.0), result.clips)

    original = Pretraining.step
    monkeypatch.setattr(Pretraining, "step", step)
    metrics = run.main(tiny("callbacks.throughput.warmup=1", "callbacks.throughput.window=1", "trainer.max_steps=2"))
    assert "clips_per_s" in metrics
    assert "tflops" not in metrics


def test_the_peak_of_a_gpu() -> None:
    assert peak_tflops("NVIDIA H100 80GB HBM3", "bf16-mixed") == 989
    assert peak_tflops("NVIDIA H100 PCIe", "32-true") == 51
    assert peak_tflops("NVIDIA A100-SXM4-80GB", "16-mixed") == 312
    assert peak_tflops("NVIDIA A10G", "bf16-true") is None  # not an A10, nor an A100
    assert peak_tflops("NVIDIA H200", "64-true") is None
