"""On systems that lack some signals, and without importing anything heavy."""

import subprocess
import sys

WINDOWS = """
import signal, os
for name in ("SIGUSR1", "SIGUSR2", "SIGCHLD"):
    delattr(signal, name)
from tubelet.runtime import signals
assert signals.WARNINGS == ()
with signals.all_noted():
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.noted == [signal.SIGTERM]
import sys
assert "torch" not in sys.modules
"""


def test_a_system_without_usr1() -> None:
    subprocess.run([sys.executable, "-c", WINDOWS], check=True, timeout=60)
