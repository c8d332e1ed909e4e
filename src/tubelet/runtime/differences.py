"""Differences between the config of a run and the config of the command that continues it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

IGNORED = ("trainer", "resume", "sweep")
"""Keys that may differ between an interrupted run and the one that continues it."""
_MACHINE_KEYS = (
    "accelerator", "devices", "num_nodes", "timeout_minutes", "log_every_n_steps", "requeue", "compile",
    "activation_checkpointing",
)  # fmt: skip
"""Keys of `trainer` that describe the machine. They may change when SLURM restarts a job; the result stays the same."""


def same_run(old: Any, new: Any) -> bool:
    """Whether one may continue the other: all keys except IGNORED are equal."""
    return _without_ignored(old) == _without_ignored(new)


def changes(old: Any, new: Any) -> str:
    """The first keys in which two configs differ so much that they are different runs, with both values."""
    before, now = ({key: str(value) for key, value in _leaves(_without_ignored(cfg))} for cfg in (old, new))
    return differences(before, now)


def changed_trainer_settings(old: Any, new: Any) -> list[str]:
    """`trainer.key=value` for the keys of `new` that ask for another result than those of `old`."""
    before, now = (_plain(cfg).get("trainer") or {} for cfg in (old, new))
    # a key that the old config lacks is no difference: an older version of tubelet wrote it
    keys = [key for key in now if key not in _MACHINE_KEYS and now[key] != before.get(key, now[key])]
    return [f"trainer.{key}={now[key]}" for key in keys]


def changed_schedule(old: Any, new: Any) -> str:
    """A warning with both values of each key if the learning rate changes its schedule; else an empty string."""
    before, now = _schedule(_plain(old)), _schedule(_plain(new))
    changes = [f"{before[key]} is now {now[key]}" for key in now if key in before and before[key] != now[key]]
    if not changes:
        return ""
    return (
        f"the learning rate follows another schedule from here on: {', '.join(changes)} (weights=PATH instead of "
        "resume=PATH starts a new run with a whole schedule)"
    )


def identity(cfg: DictConfig) -> dict[str, str]:
    """The config that all ranks of a run must share: dotted key -> value as written. `data.num_workers` is left out,
    because it may depend on the cores of a machine.
    """
    plain = OmegaConf.to_container(cfg, resolve=False)
    return {key: str(value) for key, value in _leaves(plain) if key != "data.num_workers"}


def differences(old: dict[str, str], new: dict[str, str], most: int = 4) -> str:
    """`key is 'x', not 'y'` for the first `most` keys in which two identities differ."""
    keys = [key for key in old | new if old.get(key) != new.get(key)]
    first = [f"{key} is {new.get(key)!r}, not {old.get(key)!r}" for key in keys[:most]]
    return "; ".join(first) + (f"; and {len(keys) - most} more" if len(keys) > most else "")


def _schedule(plain: dict[str, Any]) -> dict[str, str]:
    trainer = plain.get("trainer") or {}
    length = "max_steps" if trainer.get("max_steps", -1) > 0 else "max_epochs"
    found = {"length": f"trainer.{length}={trainer.get(length)}"}
    return found | {key: f"{key}={value}" for key, value in _leaves({"optim": plain.get("optim") or {}})}


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _plain(cfg: Any) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _without_ignored(cfg: Any) -> dict[str, Any]:
    return {key: value for key, value in _plain(cfg).items() if key not in IGNORED}
