"""Which groups the command line has left open, so that `weights=` may decide them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

GROUPS = ("encoder", "preprocess", "decoder", "target")
"""What weights say of themselves."""


def unchosen(hydra: Any) -> dict[str, dict[str, Any]]:
    """Group -> the settings of the file that the experiment took for it, unresolved. What the command line names is not
    in it: neither a group (`encoder=vit_large`) nor a key (`encoder.image_size=320`).

    hydra: Hydra's own config of the command. Where Hydra is not initialised, which finds the files: nothing is open.
    """
    if not GlobalHydra.instance().is_initialized():
        return {}
    loader = GlobalHydra.instance().config_loader()
    found = {}
    for group in GROUPS:
        choice = hydra.runtime.choices.get(group)
        named = _named(group, hydra.overrides.task)
        if choice is None or "" in named:
            continue
        file: Any = loader.load_configuration(f"{group}/{choice}", [], RunMode.RUN)
        settings: Any = OmegaConf.to_container(file[group], resolve=False)
        found[group] = {key: value for key, value in settings.items() if key not in named}
    return found


def _named(group: str, overrides: Iterable[str]) -> set[str]:
    """The keys of a group that overrides name; "" is the group itself."""
    matches = (re.match(rf"[+~]*{group}(?:@[^=]*)?(?:\.(\w+)[\w.]*)?(?:=|$)", override) for override in overrides)
    return {match[1] or "" for match in matches if match}
