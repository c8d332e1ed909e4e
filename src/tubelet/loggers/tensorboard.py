"""TensorBoard: the numbers of metrics.csv, in `tensorboard/` of the run directory."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger


def tensorboard_logger(run_dir: str | Path) -> TensorBoardLogger:
    """A logger that writes into `run_dir/tensorboard`. Raises ValueError if the package tensorboard is missing."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise ValueError("logger.tensorboard needs another package: pip install 'tubelet[tensorboard]'") from error
    return TensorBoardLogger(save_dir=run_dir, name=None, version="tensorboard", default_hp_metric=False)
