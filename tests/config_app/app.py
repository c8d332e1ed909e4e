"""A stand-in for train.py with small targets: tests/test_config.py composes its conf and runs it as a program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import hydra
from omegaconf import DictConfig

from tubelet.clip import ClipGrid
from tubelet.config import check, job_errors, user_errors


@dataclass
class Encoder:
    width: int
    image_size: int = 32
    patch_size: int = 16
    num_frames: int = 8
    tubelet_size: int = 2


@dataclass
class Model:
    encoder: Encoder
    depth: int = 1


@dataclass
class Method:
    masked = True

    num_frames: int
    target: Literal["pixels", "features"] = "pixels"
    hook: Callable[[int], int] | None = None

    def __post_init__(self) -> None:
        if self.num_frames > 100:
            raise AssertionError("our own mistake")


class Labelled(Method):
    masked = False


@dataclass
class Data:
    train: str | None
    val: str | None
    batch_size: int = 8
    scale: tuple[float, float] = (0.5, 1.0)
    cache: Path | None = None
    views: list[Any] = field(default_factory=list)
    prepare: Callable[[], None] | None = None


@dataclass
class Optim:
    params: list[Any]
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int = None  # type: ignore[assignment]  # a sloppy hint, as libraries have them


@dataclass
class Trainer:
    devices: int | Literal["auto"] = 1
    num_nodes: int = 1
    accumulate: int = 1


@dataclass
class Log:
    every: int = 10

    @classmethod
    def often(cls, every: int) -> Log:
        return cls(every)


def takes_anything(**kwargs: Any) -> dict[str, Any]:
    return kwargs


def prepare() -> None:
    raise AssertionError("the checker builds nothing")


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    with job_errors():
        check(cfg)
        print(f"ran with {cfg.masking.ratio}")
        if cfg.seed == 13:
            raise RuntimeError("a bug of ours")
        if cfg.seed == 14:
            ClipGrid(frames=7, height=8, width=8, tubelet=2, patch=8)  # a user's mistake that only the run can find


if __name__ == "__main__":
    with user_errors():
        main()
