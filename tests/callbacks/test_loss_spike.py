from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import wandb
from omegaconf import DictConfig

from tubelet import run
from tubelet.callbacks.loss_spike import LossSpike


@pytest.fixture
def alerts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a stand-in for the run of W&B is told."""
    told: list[str] = []
    monkeypatch.setattr(wandb, "run", SimpleNamespace(alert=lambda title, text: told.append(f"{title}: {text}")))
    return told


def follow(callback: LossSpike, losses: list[float], first: int = 1, rank_0: bool = True) -> None:
    """Losses logged at every second step, from that numbered `first`."""
    trainer = SimpleNamespace(log_every_n_steps=2, is_global_zero=rank_0, callback_metrics={})
    for step, loss in enumerate(losses, first):
        trainer.global_step = 2 * step - 1  # nothing is logged
        callback.on_train_batch_start(trainer)
        trainer.global_step, trainer.callback_metrics = 2 * step, {"train/loss": torch.tensor(loss)}
        callback.on_train_batch_start(trainer)
        callback.on_train_batch_start(trainer)  # the next of the batches that make a step


def test_a_spike_is_told_once_and_the_next_again(alerts: list[str], caplog: pytest.LogCaptureFixture) -> None:
    callback = LossSpike(window=4, threshold=10)
    # median 1.05, median deviation 0.05: a spike is above 1.05 + 10 * 1.4826 * 0.05 = 1.79
    follow(callback, [1.0, 1.1, 1.0, 1.1, 1.78, 1.9, 1.9, 1.0, float("nan"), 1.0, 1.0, 1.0, 3.0])
    assert alerts == [
        "loss spike: train/loss is 1.9 at step 11; the median of 4 rows was 1.1",
        "loss spike: train/loss is 3 at step 25; the median of 4 rows was 1",
    ]
    assert [record.message for record in caplog.records] == [alert.partition(": ")[2] for alert in alerts]


def test_a_falling_loss_and_a_flat_one_are_no_spikes(alerts: list[str]) -> None:
    follow(LossSpike(window=4), [4.0, 3.0, 2.0, 1.5, 1.2, 1.3, 1.1])
    follow(LossSpike(window=4), [1.0, 1.0, 1.0, 1.0, 1.05])  # nothing deviates: ten hundredths of it are allowed
    assert alerts == []


def test_other_ranks_are_silent_and_a_resumed_run_goes_on(alerts: list[str]) -> None:
    follow(LossSpike(window=2), [1.0, 1.0, 9.0], rank_0=False)
    assert alerts == []
    first, second = LossSpike(window=2), LossSpike(window=2)
    follow(first, [1.0, 1.0])
    second.load_state_dict(first.state_dict())
    follow(second, [1.0, 9.0], first=2)  # what was logged last before is not counted twice
    assert len(alerts) == 1


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"callbacks\.loss_spike: window must be at least 2 .*, got 1 and 10"):
        LossSpike(window=1)


def test_it_sees_every_logged_loss_of_a_run(tiny: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(LossSpike, "_compare", lambda self, trainer, step, loss: seen.append(step))
    run.main(tiny("trainer.max_epochs=3", "trainer.log_every_n_steps=2", "callbacks.knn=null"))
    assert seen == [1, 3, 5, 7]  # of nine steps
