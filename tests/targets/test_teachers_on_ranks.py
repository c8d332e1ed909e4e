"""A moving average and a frozen teacher in whole runs: on one rank, two, sharded, interrupted and continued."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from on_ranks import curve, newest, on_ranks
from tubelet import load_model, run

Tiny = Callable[..., DictConfig]
LONG = ["target=features", "target.momentum=[0.9,1.0]", "callbacks.knn=null", "data.batch_size=4",
        "callbacks.checkpoints.keep_every_n_steps=3",
        "trainer.val_every_n_epochs=100", "trainer.max_steps=6"]  # fmt: skip
TWO = {strategy: ["trainer.devices=2", f"trainer.strategy={strategy}"] for strategy in ("ddp", "fsdp")}


def weights(name: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_model(newest(name)).state_dict()
    return state


def from_step_3(name: str) -> list[str]:
    return [f"name={name}", f"resume='{newest(name) / 'checkpoints/step=3.ckpt'}'"]


@pytest.mark.slow  # a plain pytest tries it with the README's example
def test_the_average_moves_and_goes_on_bit_for_bit(tiny: Tiny) -> None:
    run.main(tiny(*LONG, "name=whole"))
    whole, losses = weights("whole"), curve("whole")
    name = "patch_embed.proj.weight"
    apart = (whole[f"target.teachers.0.{name}"] - whole[f"encoder.{name}"]).abs().max()
    assert apart > 0
    run.main(tiny(*LONG, *from_step_3("whole")))
    assert curve("whole") == losses
    assert all(torch.equal(value, whole[key]) for key, value in weights("whole").items())


@pytest.mark.slow
def test_a_run_that_starts_from_weights_starts_its_average_there(tiny: Tiny, tmp_path: Path) -> None:
    run.main(tiny("trainer.max_steps=1", "callbacks.knn=null", "name=pixels"))
    first = weights("pixels")["encoder.blocks.0.attn.qkv.weight"]
    still = ["target.momentum=[1.0,1.0]", "trainer.max_steps=2", "optim.base_lr=0.1"]
    run.main(tiny(*LONG, *still, f"weights={newest('pixels')}", "name=started"))
    found = weights("started")
    assert torch.equal(found["target.teachers.0.blocks.0.attn.qkv.weight"], first)
    assert not torch.equal(found["encoder.blocks.0.attn.qkv.weight"], first)
    # from a run with an average, that average goes on
    run.main(tiny(*LONG, *still, f"weights={newest('started')}", "name=further"))
    assert torch.equal(weights("further")["target.teachers.0.blocks.0.attn.qkv.weight"], first)
    # a frozen teacher is the encoder of its source, whatever `weights` holds
    taught = ["trainer.max_steps=2", f"target.teacher={newest('pixels')}", f"weights={newest('further')}"]
    run.main(tiny(*LONG, *taught, "name=taught"))
    found = weights("taught")
    assert torch.equal(found["target.teachers.0.blocks.0.attn.qkv.weight"], first)
    assert load_model(newest("taught")).target.sources == [str(newest("pixels"))]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_ranks_equal_one_with_every_teacher(tiny: Tiny) -> None:
    run.main(tiny("trainer.max_steps=1", "callbacks.knn=null", "name=teacher"))
    kinds = {"average": [], "frozen": [f"target.teacher={newest('teacher')}"]}
    for kind, target in kinds.items():
        run.main(tiny(*LONG, *target, f"name={kind}"))
    on_ranks(
        2,
        [
            tiny(*LONG, *target, *two, f"name={kind}_{strategy}")
            for kind, target in kinds.items()
            for strategy, two in TWO.items()
        ],
    )
    before = {strategy: weights(f"average_{strategy}") for strategy in TWO}
    on_ranks(2, [tiny(*LONG, *two, *from_step_3(f"average_{strategy}")) for strategy, two in TWO.items()])
    for kind in kinds:
        one, expected = torch.tensor(curve(kind)), weights(kind)
        for strategy in TWO:
            assert torch.allclose(torch.tensor(curve(f"{kind}_{strategy}")), one, rtol=1e-5)
            for name, value in weights(f"{kind}_{strategy}").items():
                assert torch.allclose(value, expected[name], atol=1e-5), (kind, strategy, name)
    for strategy, state in before.items():
        assert all(torch.equal(value, state[name]) for name, value in weights(f"average_{strategy}").items())
