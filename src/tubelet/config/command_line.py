"""How a user's mistake reaches the user: one clear message and exit code 2, no traceback.

With HYDRA_FULL_ERROR=1 in the environment every error comes with its traceback.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from tubelet.config.check import check_all
from tubelet.config.schema import ConfigError, settable, unknown_key
from tubelet.config.stand_ins import parameters_by_path

_OF_THE_DISK = {
    getattr(errno, name)
    for name in ["EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "ENOENT", "ENOTDIR", "EISDIR", "EEXIST"]
}
_explaining = False
"""Whether this runs within `user_errors`, and the user has not asked for tracebacks."""


@contextmanager
def user_errors() -> Iterator[None]:
    """Around the main function of a program: a message and `sys.exit(2)` where `explain` knows one, `sys.exit(1)` where
    a run says why it cannot go on.
    """
    global _explaining
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        yield
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints every error in its own way and exits with 1
    _explaining = True
    try:
        with _explained():
            yield
    finally:
        _explaining = False
        del os.environ["HYDRA_FULL_ERROR"]


@contextmanager
def job_errors() -> Iterator[None]:
    """Around the body of a Hydra job: what `user_errors` does, before Hydra can print "Error executing job with
    overrides" above it. In a sweep that line stays, for it says which job failed while the others go on.
    """
    alone = HydraConfig.get().mode is not RunMode.MULTIRUN
    with _explained() if _explaining and alone else nullcontext():
        yield


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except FloatingPointError as error:  # of tubelet.runtime.nonfinite
        _refuse(str(error), status=1)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        _refuse(message)


def explain(error: BaseException) -> str | None:
    """The message for a user's mistake; None for an error of ours, which deserves its traceback.

    A user's mistake is what Hydra, OmegaConf and yaml refuse, a ValueError that was raised by tubelet's own code, and
    a file or directory that the system does not let us read or write.
    """
    cause = error.__cause__ or error.__context__
    if isinstance(error, OverrideParseException):
        key = error.override.partition("=")[0]
        return (
            f"{error.override}: cannot be read ({str(error).splitlines()[0]}). A value that contains = or "
            f"brackets needs its own quotes: '{key}=\"VALUE\"'"
        )
    if isinstance(error, HydraException):
        file = re.match(r"In '(.+?)':", str(error))  # the file of conf/ that Hydra was reading
        if isinstance(cause, OmegaConfBaseException):
            return (f"conf/{file[1]}.yaml: " if file else "") + _explain_key(cause, file[1] if file else "")
        return str(error).partition("\nConfig search path")[0].strip()
    if isinstance(error, OmegaConfBaseException):
        return _explain_key(error)
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if isinstance(error, yaml.YAMLError) or (isinstance(error, ValueError) and _raised_by_tubelet(error)):
        return str(error)
    return _explain_worker(error) if isinstance(error, ValueError) else None


def _explain_worker(error: ValueError) -> str | None:
    """torch raises the error of a loader's worker again with that worker's whole traceback as its text."""
    text = str(error).rstrip()
    files = re.findall(r'^  File "(.+?)", line', text, re.MULTILINE)
    if not text.startswith("Caught ") or not files or "tubelet" not in Path(files[-1]).parts:
        return None
    return text.splitlines()[-1].partition(": ")[2]


def _explain_key(error: OmegaConfBaseException, file: str = "") -> str:
    """`error` about one key, which came from conf/`file`.yaml or from the command line."""
    if not isinstance(error, ConfigAttributeError | ConfigKeyError) or error.parent_node is None:
        return f"{error.full_key}: {str(error.msg).splitlines()[0]}"
    if file.startswith(f"{error.full_key}/"):
        return "the first line must be '# @package _global_', for its keys belong to the root"
    node: Any = error.parent_node
    known: Iterable[str] = [str(key) for key in node]
    if "_target_" in node:
        with suppress(ImportError, AttributeError, TypeError, ValueError):  # a wrong _target_ cannot say what it takes
            group = str(error.full_key).rpartition(".")[0]
            known = settable(group, parameters_by_path(str(node["_target_"])))
    if error.key in known:
        return f"{error.full_key}: not listed in the config, so a + must precede it: +{error.full_key}=..."
    return f"{error.full_key}: {unknown_key(str(error.key), known)}"


class CheckConfig(Callback):
    """Hydra callback: a refused config leaves no run directory, and no job of a sweep starts before all are checked."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        _check_or_refuse([config])

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if str(config.hydra.sweeper["_target_"]).endswith(
            ".BasicSweeper"
        ):  # another one knows its jobs only as it goes
            _check_or_refuse(_jobs(config))


def _check_or_refuse(configs: Iterable[DictConfig]) -> None:
    """Leaves by SystemExit: Hydra turns any Exception of a callback into a mere warning."""

    def one_by_one() -> Iterator[DictConfig]:
        for config in configs:
            HydraConfig.instance().set_config(config)  # what `${hydra:...}` refers to while it is resolved
            yield config

    try:
        check_all(one_by_one())
    except (ConfigError, HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        _refuse(str(explain(error)))


def _jobs(config: DictConfig) -> Iterator[DictConfig]:
    """The config of each job of a sweep, composed as Hydra's basic sweeper does."""
    loader = GlobalHydra.instance().config_loader()
    swept = [f"{key}={values}" for key, values in (config.hydra.sweeper.get("params") or {}).items()]
    overrides = OverridesParser.create(loader).parse_overrides([*swept, *config.hydra.overrides.task])
    choices: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        sweep = override.sweep_string_iterator() if override.is_discrete_sweep() else None
        choices[key] = [f"{key}={value}" for value in sweep] if sweep else [str(override.input_line)]
    for job in itertools.product(*choices.values()):
        yield loader.load_sweep_config(config, list(job))


def _raised_by_tubelet(error: BaseException) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).partition(".")[0] == "tubelet"


def _refuse(message: str, status: int = 2) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(status)
