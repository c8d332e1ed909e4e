"""A real SLURM of two nodes on this machine, for tests: root, Debian's packages, no systemd, no cgroups."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
CONFIG = """
ClusterName=small
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# requeued jobs wait until their old credentials have expired
AuthInfo=socket={root}/munge.sock,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
ReturnToService=2
SlurmdParameters=config_overrides
FirstJobId={first_job}
MinJobAge=3600
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=4 RealMemory=64000 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs=4 RealMemory=64000 Gres=gpu:2
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE DefaultTime=30 PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=n[1-2] MaxTime=INFINITE DefaultTime=30 PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str | None:
    """Why there can be no cluster here; None if there can."""
    if os.geteuid() != 0:
        return "the test cluster needs root"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"SLURM is not installed: no {', '.join(absent)}" if absent else None


class SmallSlurm:
    """`with SmallSlurm() as cluster`: two idle nodes n1 and n2, of four cores and two GPUs for all SLURM knows, the
    partitions main and urgent, whose jobs preempt those of main. In the end nothing that was started is left.
    """

    def __enter__(self) -> SmallSlurm:
        self.root = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))  # short, for the sockets in it
        self.root.chmod(0o755)
        self.env = os.environ | {"SLURM_CONF": str(self.root / "slurm.conf")}
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.call("scancel", "--user=root")
        for signum in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signum)
            with contextlib.suppress(AssertionError):
                until(lambda: not self._processes(), 5, "an end")
        for daemon in self._daemons:
            daemon.wait()
        shutil.rmtree(self.root)

    def _start(self) -> None:
        self._daemons: list[subprocess.Popen[bytes]] = []
        for name in ("state", "n1", "n2"):
            (self.root / name).mkdir()
        key = self.root / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))
        controller, n1, n2 = free_ports(3)
        host = socket.gethostname().split(".")[0]
        ports = {"controller": controller, "n1": n1, "n2": n2}
        config = CONFIG.format(root=self.root, host=host, first_job=1 + secrets.randbelow(9000), **ports)
        (self.root / "slurm.conf").write_text(config)
        (self.root / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")  # any devices do
        munge = {name: f"{self.root}/munge.{name}" for name in ("sock", "pid", "log", "seed")}
        self._daemon(
            "munged", "--foreground", f"--key-file={key}", f"--socket={munge['sock']}", f"--pid-file={munge['pid']}",
            f"--log-file={munge['log']}", f"--seed-file={munge['seed']}",
        )  # fmt: skip
        until(Path(munge["sock"]).exists, 20, "munged")
        self._daemon("slurmctld", "-D")
        self._daemon("slurmd", "-D", "-N", "n1")
        self._daemon("slurmd", "-D", "-N", "n2")
        until(lambda: self.call("sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D").strip() == "2", 60, "two nodes")

    def _daemon(self, *command: str) -> None:
        with (self.root / "daemons.log").open("ab") as log:
            daemon = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent
            )
        self._daemons.append(daemon)

    def _processes(self) -> list[int]:
        """Daemons, steps and what the jobs have started: all that knows this cluster or has a file of it open."""
        root, found = str(self.root), []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                files = (os.readlink(file) for file in (process / "fd").iterdir())
                known = f"SLURM_CONF={root}/".encode() in (process / "environ").read_bytes()
                if known or any(file.startswith(root) for file in files):
                    found.append(int(process.name))
        return [pid for pid in found if pid != os.getpid()]

    def call(self, *command: str) -> str:
        """The output of one of SLURM's commands, errors too, whatever its exit code."""
        done = subprocess.run(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.stdout

    def submit(self, *arguments: str, cwd: Path, **environment: str) -> str:
        """sbatch; the job's number."""
        done = subprocess.run(
            ["sbatch", "--parsable", *arguments], env=self.env | environment, cwd=cwd, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def job(self, job: str) -> dict[str, str]:
        """What `scontrol show job` knows: JobState, Restarts, ExitCode, ..."""
        text = self.call("scontrol", "show", "job", "-o", job)
        return dict(item.split("=", 1) for item in text.split() if "=" in item)


def until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for `condition`; AssertionError if it takes more than `seconds`, which only a hang should."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _die_with_parent() -> None:
    """For the case that the tests are killed: PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
