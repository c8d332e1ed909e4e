"""The parts of a run that a Lightning trainer holds, with their real types: Lightning declares only base classes."""

from __future__ import annotations

from typing import Any, cast

import lightning as L

from tubelet.data.datamodule import VideoDataModule


def data_of(trainer: L.Trainer) -> VideoDataModule:
    """The data module of a run."""
    data = cast(Any, trainer).datamodule  # an attribute that Lightning does not declare
    assert isinstance(data, VideoDataModule)
    return data


def logs_every_n_steps(trainer: L.Trainer) -> int:
    return int(cast(Any, trainer).log_every_n_steps)  # an attribute that Lightning does not declare
