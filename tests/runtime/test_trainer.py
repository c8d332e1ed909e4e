"""Precisions, strategies and switches, through whole runs; two gloo ranks compute what one does."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch.distributed.checkpoint import FileSystemWriter

from on_ranks import curve, newest, on_ranks
from tubelet import run
from tubelet.config import check
from tubelet.weights.load import load_model

Config = Callable[..., DictConfig]
ROOT = Path(__file__).parents[2]
CONF = str(ROOT / "conf")
ENCODERS = {
    "vit": ["encoder.position=sincos"],
    "vivit": ["encoder=vivit_base"],
    "factorised": ["encoder=vivit_factorised", "encoder.temporal_depth=1"],
    "timesformer": ["encoder=timesformer_base"],
}


@pytest.fixture
def tiny_of(
    tiny_arguments: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., DictConfig]:
    """`tiny` with any encoder."""
    monkeypatch.chdir(tmp_path)

    def config(encoder: str, *more: str, method: str = "mae") -> DictConfig:
        arguments = tiny_arguments("encoder.patch_size=8", *ENCODERS[encoder], *more, method=method)
        keys = [argument for argument in arguments if argument != "encoder.position=sincos" or encoder == "vit"]
        with initialize_config_dir(CONF, version_base="1.3"):
            return compose("config", keys)

    return config


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.parametrize("method", ["mae", "scratch"])
def test_precisions(tiny: Config, method: str, precision: str) -> None:
    more = ["method.mixup=0.8", "method.class_balanced=true"] if method == "scratch" else []
    if method == "mae" and precision == "64-true":
        more = ["callbacks.reconstructions={_target_: tubelet.callbacks.reconstructions.Reconstructions}"]
    run.main(tiny("trainer.max_steps=2", f"trainer.precision={precision}", *more, method=method))
    assert torch.tensor(curve("try") + curve("try", "val/loss")).isfinite().all()
    state = torch.load(newest("try") / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    whole = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(precision, torch.float32)
    assert {p.dtype for name, p in state.items() if name.endswith("weight")} == {whole}


EMA = "callbacks.ema={_target_: tubelet.callbacks.ema.EMA, decay: 0.9}"


@pytest.mark.parametrize(
    ("method", "overrides", "message"),
    [
        ("mae", ["trainer.precision=16-mixed"], "trainer.precision: 16-mixed needs a GPU"),
        ("mae", ["trainer=fsdp", "trainer.precision=16-mixed"], "trainer.precision: 16-mixed does not go with"),
        ("mae", ["trainer=fsdp", f"+{EMA}"], "callbacks.ema: cannot average the sharded weights"),
        ("scratch", ["trainer.precision=bf16-true", EMA], "callbacks.ema: the steps of an average are too small"),
        ("linear", ["trainer=fsdp", "weights=x"], "trainer.strategy: fsdp has nothing to gain from a frozen encoder"),
        ("mae", ["trainer.precision=16"], "trainer.precision: must be Literal"),
        ("mae", ["trainer.strategy=ddpp"], "trainer.strategy: must be Literal"),
    ],
)
def test_what_cannot_work_is_refused(tiny: Config, method: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        check(tiny("data.batch_size=8", *overrides, method=method))
    assert "\n" not in str(refused.value)


def test_a_pooler_that_nothing_trains_is_refused(tiny_of: Config) -> None:
    with pytest.raises(ValueError, match=r"encoder\.pooler_dim: must be null, no method trains the pooler"):
        check(tiny_of("vivit", "encoder.pooler_dim=8"))


def test_the_logged_loss_is_the_mean_of_the_accumulated_batches(tiny: Config) -> None:
    for accumulate in (1, 2):
        few = ["data.batch_size=4", "trainer.max_steps=3", "trainer.log_every_n_steps=2"]
        run.main(tiny(*few, f"trainer.accumulate={accumulate}", f"name=by_{accumulate}"))
    assert curve("by_2") == pytest.approx(curve("by_1"), rel=1e-5)
    assert len(curve("by_1")) == 1
    with pytest.raises(ValueError, match=r"trainer\.log_every_n_steps must be at least 1, got 0"):
        run.main(tiny("trainer.log_every_n_steps=0"))


def test_without_a_progress_bar_there_is_none(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning adds its own to a trainer that has none."""
    built: list[Any] = []
    monkeypatch.setattr(run, "_STAGES", {"fit": lambda trainer, *_: built.append(trainer) or {}})
    monkeypatch.setattr(run, "_finish", lambda *_: None)
    run.main(tiny("callbacks.progress=null"))
    assert built[0].progress_bar_callback is None
    bar = "callbacks.progress={_target_: lightning.pytorch.callbacks.RichProgressBar}"
    run.main(tiny(bar))
    assert type(built[1].progress_bar_callback).__name__ == "RichProgressBar"


# ---- two ranks ------------------------------------------------------------------------------------------------------

TWO = {strategy: ["trainer.devices=2", f"trainer.strategy={strategy}"] for strategy in ("ddp", "fsdp")}
PLAIN = ["method.mixup=0", "method.cutmix=0", "encoder.drop_path=0", "data.repeats=2"]  # nothing drawn by rank


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("precision", "tolerance"), [("32-true", 1e-5), ("64-true", 1e-9)])
def test_two_ranks_equal_one(tiny: Config, precision: str, tolerance: float) -> None:
    """The same global batches of the same samples give the same losses, over 20 steps, clipped at every one of them."""
    long = ["trainer.max_steps=20", "trainer.val_every_n_epochs=100", "data.batch_size=4", "optim.clip_grad=0.05"]
    long += [f"trainer.precision={precision}", "callbacks.checkpoints.every_n_steps=100"]
    kinds = {
        "pretrain": tiny_with(tiny, *long, "callbacks.knn=null"),
        "accumulated": tiny_with(tiny, *long, "callbacks.knn=null", "data.repeats=2", "trainer.accumulate=2"),
        "finetune": tiny_with(tiny, *long, *PLAIN, method="scratch"),
    }
    for kind, config in kinds.items():
        run.main(config(f"name={kind}"))
    on_ranks(2, [config(f"name={kind}_{name}", *two) for kind, config in kinds.items() for name, two in TWO.items()])
    for kind in kinds:
        one = torch.tensor(curve(kind), dtype=torch.float64)
        norm = torch.tensor(curve(kind, "grad_norm"), dtype=torch.float64)
        assert len(one) == 20
        assert (norm > 0.05).all()
        for name in TWO:
            two = torch.tensor(curve(f"{kind}_{name}"), dtype=torch.float64)
            off = ((two - one) / one).abs().max()
            of_norm = ((torch.tensor(curve(f"{kind}_{name}", "grad_norm"), dtype=torch.float64) - norm) / norm).abs()
            print(f"{kind} {name} {precision}: worst relative difference {off:.2e}, of the norm {of_norm.max():.2e}")
            assert off < tolerance
            assert of_norm.max() < 10 * tolerance


def tiny_with(tiny: Config, *more: str, method: str = "mae") -> Config:
    return lambda *last: tiny(*more, *last, method=method)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_method_and_encoder_on_two_ranks(tiny_of: Config) -> None:
    """DDP looks for no unused parameters, so each must take part in every step, or be frozen."""
    configs = {}
    for encoder in ENCODERS:
        for method in ("mae", "scratch", "linear", "attentive"):
            few = ["trainer.max_steps=3", "data.batch_size=2"]
            few += [] if method == "mae" else [*PLAIN, "method.from_weights=false"]
            few += ["model.pool_heads=2", "model.pool_depth=2"] if method == "attentive" else []
            for strategy, two in TWO.items():
                name = f"{encoder}_{method}_{strategy}"
                if strategy == "ddp" or method in ("mae", "scratch"):
                    configs[name] = tiny_of(encoder, *few, *two, f"name={name}", method=method)
    on_ranks(2, list(configs.values()))
    for name in configs:
        assert len(curve(name)) == 3
        if name.endswith("fsdp"):
            assert curve(name) == pytest.approx(curve(name.replace("fsdp", "ddp")), rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sharded_run_goes_on_with_any_number_of_ranks(tiny: Config) -> None:
    few = ["trainer.max_steps=8", "callbacks.checkpoints.keep_every_n_steps=5", "trainer.strategy=fsdp"]
    on_ranks(2, [tiny(*few, "trainer.devices=2", "name=two")])
    on_ranks(1, [tiny(*few, "name=one")])
    whole = load_model(newest("two"))
    for name, start, ranks in (("two_two", "two", 2), ("two_one", "two", 1), ("one_two", "one", 2)):
        shutil.copytree(f"runs/{start}", f"runs/{name}")
        shutil.rmtree(newest(name) / "checkpoints" / "last.ckpt")
        (newest(name) / "summary.json").unlink()
        saved = newest(name) / "checkpoints" / "step=5.ckpt"
        assert saved.is_dir()
        on_ranks(ranks, [tiny(*few, f"trainer.devices={ranks}", f"name={name}", f"resume='{saved}'")])
        continued = load_model(newest(name))
        exact = 0 if name == "two_two" else 1e-5
        assert curve(name) == pytest.approx(curve("two"), rel=exact, abs=0)
        for ours, theirs in zip(continued.state_dict().values(), whole.state_dict().values(), strict=True):
            assert torch.allclose(ours, theirs, rtol=exact, atol=exact)

    with pytest.raises(ValueError, match=r"was written with trainer\.strategy=fsdp and cannot be continued otherwise"):
        run.main(tiny("trainer.max_steps=8", f"resume={newest('two')}"))
    metrics = run.main(tiny("stage=validate", f"weights={newest('two')}", "name=validation"))
    assert metrics["val/loss"] == pytest.approx(curve("two", "val/loss")[-1], rel=1e-6)


@pytest.mark.slow
def test_a_list_of_a_sharded_checkpoint_cannot_run_code(tiny: Config) -> None:
    on_ranks(1, [tiny("trainer.max_steps=1", "trainer.strategy=fsdp")])
    checkpoint = newest("try") / "checkpoints" / "last.ckpt"
    assert load_model(checkpoint).grid.frames == 4
    for code, name in (
        (os.system, "posix.system"),
        (FileSystemWriter, f"{FileSystemWriter.__module__}.FileSystemWriter"),
    ):
        (checkpoint / ".metadata").write_bytes(pickle.dumps(code))
        with pytest.raises(ValueError, match=f"{name} does not belong in the list of a sharded checkpoint"):
            load_model(checkpoint)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sharded_ranks_evaluate_different_numbers_of_batches(tiny: Config, videos: Path, tmp_path: Path) -> None:
    """Of six videos, rank 1 can read but one: it makes fewer passes than rank 0, and neither waits for the other."""
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    files = [videos.parent / f"{i}.mp4" for i in range(6)]
    rows = [f"{file if i in (0, 1, 2, 4) else tmp_path / 'broken.mp4'},{i % 3}" for i, file in enumerate(files)]
    (tmp_path / "some.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    some = [f"data.val={tmp_path / 'some.csv'}", "data.max_bad_share=0.5", "trainer.max_epochs=2"]
    some += ["callbacks=pretrain", "callbacks.knn.every_n_epochs=1", "data.batch_size=2"]
    drawn = "callbacks.reconstructions={_target_: tubelet.callbacks.reconstructions.Reconstructions, every_n_epochs: 1}"
    drawn = drawn.replace("}", ", clips: 1}")
    on_ranks(2, [tiny(*some, drawn, f"name={name}", *two) for name, two in TWO.items()])
    for metric in ("train/loss", "val/loss", "val/knn_top1", "val/probe_top1", "val/feature_std"):
        assert curve("fsdp", metric) == pytest.approx(curve("ddp", metric), rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_compiled_run(tiny: Config) -> None:
    """Alone, under DDP, and sharded with activation checkpointing: the same losses, and checkpoints like any other."""
    # in float64, because on the CPU compiling stays off in float32
    few = ["trainer.max_steps=4", "data.batch_size=4", "trainer.precision=64-true"]
    run.main(tiny(*few, "name=plain"))
    one = tiny(*few, "trainer.compile=true", "name=one", "callbacks.checkpoints.keep_every_n_steps=2")
    run.main(one)
    compiled = [*few, "trainer.compile=true"]
    sharded = [*TWO["fsdp"], "trainer.activation_checkpointing=true", "name=fsdp"]
    on_ranks(2, [tiny(*compiled, *TWO["ddp"], "name=ddp"), tiny(*compiled, *sharded)])
    for name in ("one", "ddp", "fsdp"):
        assert curve(name) == pytest.approx(curve("plain"), rel=1e-4)
        assert load_model(newest(name)).state_dict().keys() == load_model(newest("plain")).state_dict().keys()
    saved = newest("one") / "checkpoints" / "step=2.ckpt"
    run.main(tiny(*few, "name=one", f"resume='{saved}'"))  # goes on without
    assert curve("one") == pytest.approx(curve("plain"), rel=1e-4)


def test_compiling_stays_off_where_it_was_measured_to_be_slower(tiny: Config, caplog: pytest.LogCaptureFixture) -> None:
    run.main(tiny("trainer.max_steps=1", "trainer.compile=true"))
    assert "trainer.compile stays off: on the CPU in float32" in caplog.text


@pytest.mark.slow
def test_fsdp_from_the_command_line(tiny_arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    arguments = tiny_arguments("trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_steps=2")
    subprocess.run([sys.executable, ROOT / "train.py", *arguments], cwd=tmp_path, check=True, timeout=250)
    (directory,) = (tmp_path / "runs/try").iterdir()
    assert load_model(directory).grid.frames == 4


def test_a_trial_of_a_long_run_ends_after_so_many_steps_and_batches(
    tiny: Callable[..., DictConfig], tmp_path: Path
) -> None:
    run.main(tiny("trainer.fast_dev_run=2", "trainer.max_epochs=500", "callbacks.knn.every_n_epochs=1"))
    (made,) = Path("runs/try").iterdir()
    assert json.loads((made / "summary.json").read_text())["steps"] == 2
    rows = (made / "metrics.csv").read_text()
    assert "val/knn_top1" in rows
    assert "train/loss" in rows
    assert (made / "checkpoints" / "last.ckpt").exists()
    with pytest.raises(
        ValueError, match=r"trainer\.fast_dev_run must be a number of steps, or 0 for a real run, got -1"
    ):
        run.main(tiny("trainer.fast_dev_run=-1"))
