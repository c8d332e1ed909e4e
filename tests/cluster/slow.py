"""For jobs that are to be interrupted: a callback that has time while there is a file `slow`."""

import time
from pathlib import Path
from typing import Any

import lightning as L


class Slow(L.Callback):
    def on_train_batch_start(self, *_: Any) -> None:
        if Path("slow").exists():
            time.sleep(0.3)
