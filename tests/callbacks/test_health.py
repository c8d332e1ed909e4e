"""Collapse in numbers by hand, and in a run."""

import math
from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional as F

from tubelet import run
from tubelet.callbacks.health import FeatureHealth
from tubelet.data.transforms import Preprocess
from tubelet.encoders.base import Encoder
from tubelet.evaluate.health import health
from tubelet.masking import Mask
from tubelet.targets.features import Features

Tiny = Callable[..., DictConfig]
QUIET = ["callbacks=pretrain", "callbacks.progress=null", "callbacks.reconstructions=null", "callbacks.knn=null"]


def test_by_hand() -> None:
    spread = health(torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]]))
    assert spread.feature_std == pytest.approx(1.0)
    assert spread.mean_cosine == pytest.approx(-1 / 3)  # of 12 ordered pairs 4 are opposite, the others at right angles
    assert spread.rankme == pytest.approx(2.0, abs=1e-4)
    alike = health(torch.ones(5, 3))
    assert alike.feature_std == pytest.approx(0.0, abs=1e-9)
    assert alike.mean_cosine == pytest.approx(1.0)
    assert alike.rankme == pytest.approx(1.0, abs=1e-4)
    # singular values 3 and 1: shares 3/4 and 1/4
    uneven = health(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    assert uneven.rankme == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))), abs=1e-4)


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"at least 2 clips \[n,D\], got \[1, 3\]"):
        health(torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"health\.max_clips must be at least 2, got 1"):
        FeatureHealth(max_clips=1)
    with pytest.raises(ValueError, match=r"health\.bound must lie in \[0, 1\), got 1"):
        FeatureHealth(bound=1)


def test_a_run_logs_it_and_warns_below_the_bound(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    short = [*QUIET, "trainer.max_steps=1"]
    metrics = run.main(tiny(*short))
    assert 0 < metrics["val/feature_std"] < 1
    assert 0 < metrics["val/mean_cosine"] < 1
    assert 1 < metrics["val/rankme"] <= 6
    run.main(tiny(*short, "callbacks.health.bound=0.99"))
    assert "collapsed" not in caplog.text  # pixels cannot
    run.main(
        tiny(
            *short,
            "callbacks.health.bound=0.99",
            "target._target_=tubelet.targets.features.Features",
            "~target.normalise",
        )
    )
    assert "the features have collapsed: val/feature_std is" in caplog.text


class Open(Features):
    """Without the stopped gradient: the truth may come to meet the prediction, and both end where all are alike."""

    def __init__(self, encoder: Encoder, preprocess: Preprocess) -> None:
        super().__init__(encoder, preprocess)
        self.student = [encoder]  # in a list, so that it is no submodule

    def forward(self, clip: Tensor, mask: Mask) -> Tensor:
        tokens = self.student[0](clip)
        assert isinstance(tokens, Tensor)
        hidden = tokens.gather(1, mask.hidden[..., None].expand(-1, -1, self.dim))
        return F.layer_norm(hidden, [self.dim])


@pytest.mark.slow
def test_a_run_that_collapses_is_caught(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    own = ["target._target_=test_health.Open", "~target.normalise"]
    long = ["optim.base_lr=1.28", "trainer.max_epochs=80", "trainer.val_every_n_epochs=80"]  # 0.01 at batch 2
    metrics = run.main(tiny(*QUIET, *long, *own))
    assert metrics["val/feature_std"] < 0.1
    assert metrics["val/mean_cosine"] > 0.95
    assert "the features have collapsed" in caplog.text
