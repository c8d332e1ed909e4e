"""The one checker: it refuses a bad config before data are touched, and names all of its mistakes.

Hydra lets an unknown key pass wherever a yaml file brings it along or a `+` precedes it. So `check` walks the composed
config: the root against `Root`, each `_target_` node against its callable's signature and type hints, and then the
combinations no signature knows of. There is no dataclass per yaml file, and a new target needs nothing here.

It looks twice: first without importing torch and the like (tubelet.config.stand_ins), so that most mistakes are
reported at once, and then, if nothing was found, with the real classes.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tubelet.config.combinations import impossible
from tubelet.config.schema import COLLECTIONS, GROUPS, NULLABLE, ConfigError, Root, settable, unknown_key
from tubelet.config.stand_ins import find_target, stand_ins, standing_in
from tubelet.config.values import CheckedElsewhere, fits, hints_of, name_of
from tubelet.data.splits import STAGES
from tubelet.nodes import NODE_KEYS, parameters_of
from tubelet.runtime import torchmetrics_parts


def check(cfg: DictConfig) -> None:
    """Raise one `ConfigError` with all mistakes of a composed config. Combinations are judged once every key is right.

    The `hydra` node, present in what Hydra's callbacks are given, is left out. Nothing is built but one mask.
    """
    check_all([cfg])


def check_all(configs: Iterable[DictConfig]) -> None:
    """`check` each of them. The slow look at the first waits for the quick look at the last."""
    resolved = [_resolve(cfg) for cfg in configs]
    if "torch" not in sys.modules:
        with stand_ins():
            for config, found in resolved:
                _judge(config, found)
        torchmetrics_parts.defer()  # the real classes are imported next
    for config, found in resolved:
        _judge(config, found)


@dataclass
class _Mistakes:
    at: dict[str, str] = field(default_factory=dict)  # full key -> what is wrong
    source: dict[str, str] = field(default_factory=dict)  # full key -> the key its value is taken from

    def without_echoes(self) -> dict[str, str]:
        """A wrong value is reported where it was written, not wherever `${...}` repeats it."""
        written = {key: message for key, message in self.at.items() if self.source.get(key) not in self.at}
        return written or self.at  # a circle of `${...}` has no beginning


def _resolve(cfg: DictConfig) -> tuple[dict[str, Any], _Mistakes]:
    """A config as plain containers, and what cannot be resolved."""
    found = _Mistakes()
    return {str(key): _plain(cfg, key, str(key), found) for key in cfg if key != "hydra"}, found


def _judge(config: dict[str, Any], found: _Mistakes) -> None:
    _check_root(config, found)
    for key, value in config.items():
        _check_tree(key, value, found)
    if not found.at:
        # a combination with a class that is not known yet may be anything; it is judged when the class is imported
        with suppress(Exception) if standing_in() else nullcontext():
            found.at.update(impossible(config))
    if found.at:
        raise ConfigError([f"{key}: {message}" for key, message in found.without_echoes().items()])


def _plain(parent: DictConfig | ListConfig, key: Any, path: str, found: _Mistakes) -> Any:
    """`parent[key]` as plain resolved containers; missing values and interpolations without an end are noted."""
    if OmegaConf.is_missing(parent, key):
        found.at[path] = "a value is missing"
        return CheckedElsewhere()
    reference = OmegaConf.is_interpolation(parent, key)
    if reference:
        text = re.fullmatch(r"\$\{([\w.]+)\}", OmegaConf.to_container(parent, resolve=False)[key])  # type: ignore[index]
        found.source[path] = text[1] if text else ""
    try:
        value = parent[key]
    except OmegaConfBaseException as error:
        message = str(error.msg).splitlines()[0]
        reason = message.partition(" raised while resolving interpolation: ")[2]  # by one of our resolvers
        if not reason or reason not in found.at.values():  # once, however many keys depend on it
            found.at[path] = reason or message
        return CheckedElsewhere()
    if isinstance(value, DictConfig):
        if reference and "_target_" in value:
            return CheckedElsewhere()
        return {str(name): _plain(value, name, f"{path}.{name!s}", found) for name in value}
    if isinstance(value, ListConfig):
        return [_plain(value, index, f"{path}[{index}]", found) for index in range(len(value))]
    return value


def _check_root(config: dict[str, Any], found: _Mistakes) -> None:
    known = [f.name for f in fields(Root)]
    found.at.update({key: unknown_key(key, known) for key in config if key not in known})
    for key in known:
        if key not in config:
            found.at[key] = "a value is missing"
        elif key in COLLECTIONS and isinstance(config[key], dict) and "_target_" not in config[key]:
            for name, item in config[key].items():
                _check_is_node(f"{key}.{name}", item, found, nullable=True)
        elif key in GROUPS:
            _check_is_node(key, config[key], found, nullable=key in NULLABLE)
    if "stage" not in found.at and config["stage"] not in STAGES:
        found.at["stage"] = f"must be one of {', '.join(STAGES)}, got {config['stage']!r}"


def _check_is_node(path: str, value: Any, found: _Mistakes, nullable: bool) -> None:
    if path in found.at or (value is None and nullable):
        return
    if not isinstance(value, dict) or "_target_" not in value:
        found.at[path] = f"must be a node with a _target_{' or null' if nullable else ''}, got {value!r}"


def _check_tree(path: str, value: Any, found: _Mistakes) -> None:
    """Check every `_target_` node at or below `path`."""
    if isinstance(value, dict):
        if "_target_" in value:
            _check_node(path, value, found)
        for key, child in value.items():
            _check_tree(f"{path}.{key}", child, found)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            _check_tree(f"{path}[{index}]", child, found)


def _check_node(path: str, node: dict[str, Any], found: _Mistakes) -> None:
    """The keys of a node against its callable's parameters, its values against the type hints."""
    try:
        target = find_target(str(node["_target_"]))
        named, hints = settable(path, parameters_of(target)), hints_of(target)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        found.at.setdefault(f"{path}._target_", f"cannot be used: {error}")
        return
    takes_any_key = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(target).parameters.values())
    for key, value in node.items():
        if key in NODE_KEYS:
            continue
        if key not in named:
            if not takes_any_key:
                found.at[f"{path}.{key}"] = unknown_key(key, named)
        elif not fits(value, hints.get(key, Any), named[key].default):
            found.at[f"{path}.{key}"] = f"must be {name_of(hints[key])}, got {value!r}"
    if not node.get("_partial_", False):
        for name, parameter in named.items():
            if parameter.default is parameter.empty and name not in node:
                found.at[f"{path}.{name}"] = f"a value is missing, {node['_target_']} needs it"
