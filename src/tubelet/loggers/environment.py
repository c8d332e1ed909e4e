"""With what a run was made: the version of the code, of what it stands on, and the machine."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
from pathlib import Path

import lightning as L
import torch

from tubelet.version import __version__


def versions() -> dict[str, str]:
    """Of `tubelet`, `python`, `torch` and `lightning`, as imported: a package that was never installed, or whose
    metadata cannot be read, has a version too.
    """
    return {
        "tubelet": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "lightning": L.__version__,
    }


def environment() -> dict[str, str]:
    """`tubelet`, `python`, `torch`, `lightning`, `host`, `device`, `command`; and `commit` where tubelet runs from a
    git checkout, with `-dirty` if files have been changed since.
    """
    found = {
        **versions(),
        "host": socket.gethostname(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "command": " ".join(sys.argv),
    }
    commit = _commit(Path(__file__).parents[3])
    return {**found, "commit": commit} if commit else found


def _commit(root: Path) -> str | None:
    """The commit of the checkout at `root`; None if there is no git, or `root` only lies somewhere within another
    checkout, as installed packages may.
    """
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
