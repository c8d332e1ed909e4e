"""The command line's names from Python: `build_model("encoder=vit_base", "target=pixels")`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, flag_override

from tubelet.config.unchosen import unchosen
from tubelet.nodes import build, packages_of

_PACKAGE = Path(__file__).parents[1]


def conf_directory() -> Path:
    """conf/ as a wheel carries it within the package, or as it lies beside src/ in a checkout."""
    return _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1] / "conf"


def compose(*overrides: str) -> DictConfig:
    """The config of `python train.py OVERRIDES`. Works from any directory, and within a Hydra program too."""
    return compose_with_unchosen(*overrides)[0]


def compose_with_unchosen(*overrides: str) -> tuple[DictConfig, dict[str, dict[str, Any]]]:
    """The same, and what the overrides leave to `weights=`: see tubelet.config.unchosen."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_directory()), version_base="1.3"):
            cfg = hydra_compose("config", list(overrides), return_hydra_config=True)
            left = unchosen(cfg.hydra) if cfg.weights is not None else {}
        with flag_override(cfg, ["read_only", "struct"], False):
            del cfg["hydra"]
        return cfg, left
    finally:
        GlobalHydra.instance().hydra = outer


def build_model(*overrides: str) -> Any:
    """The untrained model of `python train.py OVERRIDES`, on the CPU: a MaskedModel, or a VideoClassifier where
    `method=` learns labels (`data.num_classes=` then says how many). Its weights are random; `torch.manual_seed` first
    makes them reproducible. Raises ValueError, or Hydra's own errors, for names and keys that do not exist.
    """
    config = compose(*overrides)
    from tubelet.weights import teachers  # imports torch, and a mistake in a config should not wait for it

    node: Any = OmegaConf.to_container(config.model, resolve=True)
    trust = packages_of(node)
    model = build(teachers.describe(node, trust), where="model")
    teachers.load_teachers(model, trust)
    return model
