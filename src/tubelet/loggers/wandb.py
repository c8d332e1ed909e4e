"""Weights & Biases: online with a key and a server that answers, else offline. Only this file reads its environment."""

from __future__ import annotations

import http.client
import logging
import netrc
import os
import secrets
import shlex
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from threading import Thread
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from tubelet.loggers.environment import environment
from tubelet.loggers.place import group_of, name_of, probe_of
from tubelet.storage import write_text

log = logging.getLogger(__name__)
PATIENCE = 5.0
"""Seconds in which the server must answer before a run in mode `auto` is logged offline."""
_SERVER = "https://api.wandb.ai"
_MODES = {"online": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}


def wandb_logger(
    run_dir: str | Path,
    config: dict[str, Any],
    project: str | None = None,
    entity: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: list[str] | None = None,
    mode: Literal["auto", "online", "offline", "disabled"] = "auto",
) -> WandbLogger:
    """A logger that writes into `run_dir/wandb`. A resumed run keeps its id, and so continues its W&B run.

    Mode `auto` uses WANDB_MODE if it is set. Else it is online if there is a key (in WANDB_API_KEY, in ~/.netrc, or in
    the file that NETRC names) and the server answers within PATIENCE seconds; else offline, and `wandb sync` uploads
    the run later. Mode `online` never changes to offline.

    Defaults: `project` is WANDB_PROJECT, else `tubelet`; `entity` WANDB_ENTITY, else the owner of the key; `group` the
    experiment or the study; `job_type` the name of a probe, else what the run does (pretraining, validate, ...); `tags`
    the experiment and the encoder, and in pretraining the masking and the target. To the config of the run comes
    `environment`: versions, commit and machine.
    """
    run_dir = Path(run_dir)
    falls_back = False
    if mode == "auto":
        wished = _MODES.get(os.environ.get("WANDB_MODE", ""))
        falls_back = wished is None
        chosen = wished or ("online" if _has_key() else "offline")
    else:
        chosen = mode
    id_file = run_dir / "wandb_id.txt"
    if getattr(rank_zero_only, "rank", 0) == 0 and not id_file.exists():  # the other ranks log nothing
        write_text(id_file, secrets.token_hex(4))
    return RunLogger(
        falls_back,
        project=project or os.environ.get("WANDB_PROJECT") or "tubelet",
        entity=entity or os.environ.get("WANDB_ENTITY"),
        group=group or group_of(run_dir), job_type=job_type or _job_type(run_dir, config),
        tags=_tags(config) if tags is None else tags, dir=str(run_dir), name=name_of(run_dir),
        id=id_file.read_text().strip() if id_file.exists() else None,
        resume="allow", mode=chosen, config=config,
    )  # fmt: skip


def _job_type(run_dir: Path, config: dict[str, Any]) -> str:
    method = str((config.get("method") or {}).get("_target_", "")).split(".")[-2:][0]
    return probe_of(run_dir) or (method if config.get("stage", "fit") == "fit" else str(config["stage"]))


def _tags(config: dict[str, Any]) -> list[str]:
    """The experiment, and the classes of what makes one run another than the next."""
    pretrains = "target" in (config.get("model") or {})
    nodes = [config.get(group) or {} for group in ("encoder", *(("masking", "target") if pretrains else ()))]
    names = [config.get("name"), *(node.get("_target_", "").rpartition(".")[2] for node in nodes)]
    return [str(name)[:64] for name in dict.fromkeys(names) if name]  # W&B takes 64 characters


class RunLogger(WandbLogger):
    """Lightning's logger, but it opens the run itself: offline if `falls_back` is True and the server does not answer.
    `arguments`: the arguments of `wandb.init`.
    """

    def __init__(self, falls_back: bool, **arguments: Any) -> None:
        super().__init__(save_dir=arguments["dir"], **{key: arguments[key] for key in arguments if key != "dir"})
        self.falls_back, self.arguments = falls_back, arguments
        self._run: Any = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run object of the wandb package. It is opened at the first access."""
        if self._run is None:
            self._run = self._open()
            # the optimizer step is the x axis of all charts
            self._run.define_metric("trainer/global_step")
            self._run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return self._run

    @property
    def sync_command(self) -> str | None:
        """The command that uploads an offline run, all parts of it if it was resumed; None if it is online."""
        folder = Path(self.arguments["dir"]) / "wandb"
        return f"wandb sync {shlex.quote(str(folder))}/offline-run-*" if any(folder.glob("offline-run-*")) else None

    def add_to_summary(self, values: dict[str, Any]) -> None:
        """Set values of the summary. W&B replaces the whole summary of a run that is opened again, so give it all."""
        self.experiment.summary.update(values)

    def _open(self) -> Any:
        import wandb

        server = os.environ.get("WANDB_BASE_URL") or _SERVER
        falls_back = self.falls_back and self.arguments["mode"] == "online"
        if falls_back and not _answers(server):
            return self._open_offline(f"{server} does not answer within {PATIENCE:g} s")
        try:
            return _init(self.arguments)
        except wandb.errors.Error as error:
            if not falls_back:
                raise
            wandb.teardown()  # otherwise the id of the run is still in use
            return self._open_offline(str(error))

    def _open_offline(self, reason: str) -> Any:
        run = _init({**self.arguments, "mode": "offline"})
        log.warning("W&B: %s. This run is logged offline; `%s` uploads it", reason, self.sync_command)
        return run


def close_wandb() -> None:
    """End the W&B run, so that the next job of a sweep starts its own."""
    wandb = sys.modules.get("wandb")  # imported by its logger, in a run that logs to it
    if wandb is not None and wandb.run is not None:
        wandb.finish()


def _init(arguments: dict[str, Any]) -> Any:
    import wandb

    settings = wandb.Settings(silent=arguments["mode"] != "online", console="off")
    config = {**arguments["config"], "environment": environment()}
    return wandb.init(**{**arguments, "config": config}, settings=settings)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    own = urllib.parse.urlsplit(os.environ.get("WANDB_BASE_URL", "")).hostname
    try:
        file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
        return any("wandb" in host or host == own for host in netrc.netrc(file).hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def _answers(server: str) -> bool:
    """Whether the server answers, through the proxies of the environment. We ask first, because wandb itself would try
    for minutes.
    """
    answered: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(server, timeout=PATIENCE).close()
        except urllib.error.HTTPError:
            pass  # an error code is an answer, too
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ssl.SSLError):  # wandb may trust certificates that Python does not
                return
        except (OSError, ValueError, http.client.HTTPException):
            return
        answered.append(True)

    thread = Thread(target=ask, daemon=True)  # in a thread: looking up a host name has no time limit
    thread.start()
    thread.join(PATIENCE + 1)
    return bool(answered)
