"""Each case is a process of its own, for this one has imported everything."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(script: str) -> None:
    start = "import sys\nfrom tubelet.runtime.torchmetrics_parts import defer\ndefer()\ndefer()\n"
    done = subprocess.run([sys.executable, "-c", start + script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_version_costs_nothing() -> None:
    run(
        "import torchmetrics\nfrom importlib.metadata import version\n"
        "assert torchmetrics.__version__ == version('torchmetrics')\n"
        "assert not hasattr(torchmetrics, '__wrapped__')\nassert 'torch' not in sys.modules\n"
    )


@pytest.mark.slow
def test_lightning_and_our_methods_need_only_parts() -> None:
    run(
        "import tubelet.run, tubelet.methods.classification, tubelet.methods.probe\n"
        "assert {'transformers', 'torchvision', 'scipy'}.isdisjoint(sys.modules)\n"
        "import lightning, torchmetrics\nassert torchmetrics.Metric is lightning.pytorch.utilities.types.Metric\n"
        "assert torchmetrics.functional.accuracy and torchmetrics.MeanMetric and torchmetrics.Accuracy\n"
        "from torchmetrics import *\nassert MetricCollection is torchmetrics.collections.MetricCollection\n"
        "assert type(torchmetrics) is type(sys), type(torchmetrics)\n"
    )


@pytest.mark.slow
def test_another_version_that_has_other_modules_is_imported_whole() -> None:
    run(
        "from tubelet.runtime import torchmetrics_parts\ntorchmetrics_parts._HOMES['Metric'] = 'torchmetrics.nowhere'\n"
        "from torchmetrics import Metric\nimport torchmetrics\nassert Metric is torchmetrics.metric.Metric\n"
        "assert type(torchmetrics) is type(sys)\n"
    )
