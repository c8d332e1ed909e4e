"""Adapters of LoRA and frozen blocks: what is trained, what is kept, and what is loaded afterwards."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from tubelet import run
from tubelet.data.dataset import Batch
from tubelet.encoders.base import Encoder
from tubelet.encoders.timesformer import TimeSformer
from tubelet.encoders.vit import VideoViT
from tubelet.encoders.vivit import FactorisedViViT, ViViT
from tubelet.methods.base import Plan
from tubelet.methods.classification import Classification
from tubelet.methods.lora import Lora
from tubelet.models.classifier import VideoClassifier
from tubelet.optim.adamw import AdamW
from tubelet.weights.adapters import joined
from tubelet.weights.load import load_model
from tubelet.weights.save import save_pretrained

peft = pytest.importorskip("peft", reason="method=lora needs peft: pip install 'tubelet[lora]'")
SIZES = {"image_size": 16, "num_frames": 4, "patch_size": 8, "dim": 24, "depth": 2, "num_heads": 2}
ENCODERS: list[type[Encoder]] = [VideoViT, ViViT, FactorisedViViT, TimeSformer]


def method(kind: type[Classification] = Lora, encoder: type[Encoder] = VideoViT, **settings: object) -> Classification:
    torch.manual_seed(0)
    pool = "cls" if encoder is not VideoViT else "mean"
    model = VideoClassifier(encoder(**SIZES), 3, pool=pool, norm_after_pool=True)  # type: ignore[call-arg]
    nn.init.trunc_normal_(model.head.weight, std=0.02)  # its own first values are almost zero
    return kind(model, {}, AdamW(), Plan(10, 5, 4), **settings)


def batch(size: int = 4) -> Batch:
    clip = torch.randn(size, 3, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    return Batch(clip, None, torch.arange(size) % 3, torch.arange(size))


def train(trained: Classification, steps: int = 5) -> list[float]:
    optimizer = torch.optim.Adam([p for p in trained.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = trained.train().step(batch()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("encoder", ENCODERS)
def test_adapters_start_as_the_pretrained_model_and_join_to_the_trained_one(encoder: type[Encoder]) -> None:
    plain, lora = method(Classification, encoder), method(encoder=encoder, rank=4)
    clip = batch().clip
    before = copy.deepcopy(plain.model.state_dict())
    assert torch.equal(lora.model.eval()(clip), plain.model.eval()(clip))
    losses = train(lora)
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in lora.model.parameters() if p.requires_grad)

    state = {name: value.clone() for name, value in lora.model.state_dict().items()}
    for name, value in before.items():  # the encoder's own weights are kept
        if name.startswith("encoder.") and "encoder.norm." not in name:
            adapted = name.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias")
            assert torch.equal(state.get(name, state.get(adapted)), value), name
    plain.model.load_state_dict(joined(state, 32 / 4, "a file"))
    trained = lora.model.eval()(clip)
    assert not torch.allclose(trained, before_of(before, encoder)(clip), atol=1e-3)
    assert torch.allclose(plain.model(clip), trained, atol=1e-5)

    for layer in lora.model.modules():  # as peft itself joins them
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            layer.merge()
    theirs = lora.model.state_dict()
    for name, value in plain.model.state_dict().items():
        there = theirs.get(name, theirs.get(name.replace(".weight", ".base_layer.weight")))
        if there is not None:
            assert torch.allclose(value, there, atol=1e-7), name


def before_of(state: dict[str, torch.Tensor], encoder: type[Encoder]) -> VideoClassifier:
    model = method(Classification, encoder).model
    model.load_state_dict(state)
    return model.eval()


def test_what_has_adapters_and_what_is_trained() -> None:
    trained = {n for n, p in method(layers=["qkv"], rank=2).model.named_parameters() if p.requires_grad}
    adapters = {
        f"encoder.blocks.{block}.attn.qkv.lora_{which}.default.weight" for block in range(2) for which in ("A", "B")
    }
    assert trained == adapters | {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    above = {n for n, p in method(freeze=1, rank=2).model.named_parameters() if p.requires_grad and "lora" in n}
    assert len(above) == 8  # four layers of the last block
    assert all(name.startswith("encoder.blocks.1.") for name in above)
    norm = {n for n, p in method(encoder=TimeSformer).model.named_parameters() if p.requires_grad and "lora" not in n}
    assert norm == {"encoder.norm.weight", "encoder.norm.bias", "head.weight", "head.bias"}


def test_the_first_adapters_depend_on_the_seed_of_the_run_alone() -> None:
    first, second = method(), method()
    torch.manual_seed(5)
    for (name, one), other in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": ["query"]}, r"'query', there are attn\.qkv, attn\.proj, mlp\.fc1, mlp\.fc2"),
        ({"layers": []}, r"method\.layers is empty"),
        ({"rank": 0}, r"method\.rank must lie between 1 and 23, below the width of a layer, got 0"),
        ({"rank": 24}, r"between 1 and 23, .* got 24"),
        ({"alpha": 0.0}, r"method\.alpha must be positive, got 0"),
        ({"freeze": 3}, r"method\.freeze must lie between 0 and 2, the encoder's blocks, got 3"),
        ({"freeze": -1}, r"between 0 and 2, the encoder's blocks, got -1"),
        ({"freeze": 2}, r"no block of VideoViT is left that has a linear layer"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(**settings)


def test_adapters_of_an_unknown_scale_are_refused() -> None:
    with pytest.raises(ValueError, match=r"some\.ckpt holds adapters \(LoRA\) without their scale"):
        joined(dict(method().model.state_dict()), None, "some.ckpt")


@pytest.mark.parametrize("encoder", ENCODERS)
def test_frozen_blocks_keep_their_weights_and_nothing_for_the_backward_pass(encoder: type[Encoder]) -> None:
    whole, frozen = method(Classification, encoder), method(Classification, encoder, freeze=1)
    before = copy.deepcopy(frozen.model.state_dict())
    sizes = []
    for each in (whole, frozen):
        saved: dict[int, int] = {}
        known = {p.untyped_storage().data_ptr() for p in each.parameters()}

        def weigh(x: torch.Tensor, saved: dict[int, int] = saved, known: set[int] = known) -> torch.Tensor:
            if x.untyped_storage().data_ptr() not in known:
                saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(weigh, lambda x: x):
            loss = each.train().step(batch()).loss
        sizes.append(sum(saved.values()))
        assert loss.isfinite()
    assert sizes[1] < 0.7 * sizes[0]
    first, second = list(frozen.model.encoder.layers())[1:3]
    assert not any(part.training for part in first.modules())
    assert second.training
    train(frozen)
    layers = dict(frozen.model.encoder.named_modules())
    names = {id(part): name for name, part in layers.items()}
    for name, value in frozen.model.state_dict().items():
        if name.startswith(
            (f"encoder.{names[id(first)]}.", "encoder.patch_embed.", "encoder.positions", "encoder.cls")
        ):
            assert torch.equal(value, before[name]), name
    assert not torch.equal(frozen.model.state_dict()["head.weight"], before["head.weight"])


@pytest.mark.parametrize(("method", "settings"), [("lora", "rank=4"), ("finetune", "freeze=1")])
def test_a_run_is_continued_exactly_and_hands_on_an_ordinary_model(
    method: str, settings: str, tiny: Callable[..., DictConfig], tmp_path: Path
) -> None:
    tuned = [
        "method.from_weights=false", f"method.{settings}", "optim.base_lr=0.5", "trainer.val_every_n_epochs=2",
        "callbacks.checkpoints.keep_every_n_steps=2", "encoder.drop_path=0.2", "model.norm_after_pool=true",
    ]  # fmt: skip
    run.main(tiny(*tuned, method=method))
    (straight,) = (tmp_path / "runs/try").iterdir()
    stopped = shutil.copytree(straight, straight.with_name("stopped"))
    (stopped / "summary.json").unlink()
    (stopped / "checkpoints/step=2.ckpt").replace(stopped / "checkpoints/last.ckpt")
    run.main(tiny(*tuned, f"resume={stopped}", method=method))
    whole, continued = (torch.load(path / "checkpoints/last.ckpt")["state_dict"] for path in (straight, stopped))
    halfway = torch.load(straight / "checkpoints/step=2.ckpt")["state_dict"]
    assert all(torch.equal(value, continued[name]) for name, value in whole.items())
    changed = {name.removeprefix("model.") for name, value in whole.items() if not torch.equal(value, halfway[name])}
    assert "head.weight" in changed
    assert not changed & {"encoder.patch_embed.proj.weight", "encoder.blocks.0.norm1.weight"}

    model = load_model(straight)
    save_pretrained(model, tmp_path / "plain")
    theirs = load_model(tmp_path / "plain")
    clip = torch.randn(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model(clip), theirs(clip), atol=1e-6)
    assert all("lora" not in name and "base_layer" not in name for name in model.state_dict())
