"""For runs that are to be interrupted: a callback that takes its time as long as there is a file `slow`."""

import time
from pathlib import Path
from typing import Any

import lightning as L


class Slow(L.Callback):
    """`slow`: in training; `slow_validation`: in validation."""

    def on_train_batch_start(self, *_: Any) -> None:
        if Path("slow").exists():
            time.sleep(0.3)

    def on_validation_batch_start(self, *_: Any) -> None:
        if Path("slow_validation").exists():
            time.sleep(3)
