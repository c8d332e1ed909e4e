from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from tubelet import run
from tubelet.data.dataset import Batch
from tubelet.encoders.vit import VideoViT
from tubelet.methods.base import Plan
from tubelet.methods.probe import Probe
from tubelet.models.classifier import VideoClassifier
from tubelet.optim.adamw import AdamW
from tubelet.weights.load import load_model


def probe(pool: str = "mean", **settings: object) -> Probe:
    torch.manual_seed(0)
    encoder = VideoViT(image_size=16, num_frames=4, patch_size=8, dim=24, depth=2, num_heads=2, drop_path=0.5)
    model = VideoClassifier(encoder, 3, pool=pool, pool_heads=2, fc_norm=pool == "mean")  # type: ignore[arg-type]
    return Probe(model, {}, AdamW(base_lr=1e-2), Plan(10, 5, 4), **settings)


def batch() -> Batch:
    clip = torch.randn(6, 3, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    return Batch(clip, None, torch.arange(6) % 3, torch.arange(6))


@pytest.mark.parametrize("pool", ["mean", "attentive"])
def test_heads_learn_and_the_encoder_stays(pool: str) -> None:
    trained = probe(pool).train()
    before = [p.clone() for p in trained.model.parameters()]
    optimizer = trained.configure_optimizers()
    assert {group["lr_scale"] for group in optimizer.param_groups} == {0.1, 0.3, 1.0, 3.0, 10.0}
    first = float(trained.step(batch()).loss)
    assert float(trained.step(batch()).loss) == first  # nothing is dropped in the frozen encoder
    for _ in range(20):
        optimizer.zero_grad()
        loss = trained.step(batch()).loss
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained.heads.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, trained.model.parameters(), strict=True))
    assert float(loss) < first - 0.3


def test_a_head_given_to_the_model_is_the_model() -> None:
    trained = probe("attentive").eval()
    torch.nn.init.normal_(trained.heads[2].head.weight)
    trained.heads[2].copy_into(trained.model)
    clip = batch().clip
    assert torch.equal(trained.model(clip), trained.heads[2](trained.model.encoder(clip)))


def test_the_best_head_is_in_the_checkpoint(tiny: Callable[..., DictConfig], videos: Path) -> None:
    run.main(tiny("trainer.max_epochs=1"))
    (pretrained,) = Path("runs/try").iterdir()
    few = ["method.lr_factors=[0.0001,10.0]", f"weights={pretrained}", "name=probe", "optim.base_lr=1"]
    metrics = run.main(tiny(*few, "trainer.max_epochs=3", method="linear"))
    assert metrics["val/top1"] == max(metrics["val/top1_lr0.0001"], metrics["val/top1_lr10"])
    (directory,) = Path("runs/probe").iterdir()
    test = [f"data.test={videos}", "stage=test", f"weights={directory}", "name=test"]
    best = torch.load(directory / "checkpoints" / "best.ckpt", weights_only=True)["callbacks"]
    (value,) = [state["best"] for name, state in best.items() if name.startswith("Checkpoints")]
    assert run.main(
        tiny(
            *test,
            method="linear",
        )
    )["test/top1"] == pytest.approx(value)
    assert load_model(directory).num_classes == 3


def test_equal_factors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lr_factors must be positive and different, got \[1.0, 1.0\]"):
        probe(lr_factors=[1.0, 1.0])


def test_a_checkpoint_without_a_validation_holds_a_trained_head(tiny: Callable[..., DictConfig]) -> None:
    run.main(tiny("trainer.max_epochs=1"))
    (pretrained,) = Path("runs/try").iterdir()
    run.main(tiny(f"weights={pretrained}", "name=probe", "trainer.val_every_n_epochs=9", method="linear"))
    (directory,) = Path("runs/probe").iterdir()
    state = torch.load(directory / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state["model.head.weight"], state["heads.2.head.weight"])
    assert not torch.equal(state["heads.2.head.weight"], state["heads.3.head.weight"])
