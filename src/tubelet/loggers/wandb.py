"""Weights & Biases, offline where there is no key."""

from __future__ import annotations

import netrc
import os
import secrets
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from tubelet.storage import write_text


def wandb_logger(
    run_dir: str | Path,
    config: dict[str, Any],
    project: str = "tubelet",
    entity: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    mode: Literal["auto", "online", "offline"] = "auto",
) -> WandbLogger:
    """A logger into `run_dir/wandb`, whose run keeps its id when the run directory is resumed.

    `auto` logs online if there is a key (WANDB_API_KEY, or in ~/.netrc or the file NETRC names), else offline;
    `wandb sync` uploads later.
    """
    import wandb

    run_dir = Path(run_dir)
    if mode == "auto":
        mode = "online" if _has_key() and os.environ.get("WANDB_MODE") != "offline" else "offline"
    id_file = run_dir / "wandb_id.txt"
    if rank_zero_only.rank == 0 and not id_file.exists():  # the other ranks log nothing
        write_text(id_file, secrets.token_hex(4))
    logger = WandbLogger(
        project=project, entity=entity, group=group, tags=tags, save_dir=str(run_dir), name=run_dir.name,
        id=id_file.read_text().strip() if id_file.exists() else None, resume="allow", mode=mode, config=config,
        settings=wandb.Settings(silent=mode == "offline", console="off"),
    )  # fmt: skip
    logger._wandb_init.pop("anonymous", None)  # Lightning's, of which wandb warns that it is going to go
    return logger


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
        return any("wandb" in host for host in netrc.netrc(file).hosts)
    except (OSError, netrc.NetrcParseError):
        return False
