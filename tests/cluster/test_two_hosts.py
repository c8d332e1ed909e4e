"""Two hosts, each a network namespace with its own address, and the cable between them."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jobs import PATIENCE, Clone, assert_equal

ADDRESSES = ("10.77.0.1", "10.77.0.2")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class TwoHosts:
    def __enter__(self) -> "TwoHosts":
        self.names = [f"tubelet{os.getpid()}{side}" for side in "ab"]
        try:
            for name in self.names:
                ip("netns", "add", name)
            ip("link", "add", "cable", "netns", self.names[0], "type", "veth", "peer", "cable", "netns", self.names[1])
            for name, address in zip(self.names, ADDRESSES, strict=True):
                ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
                for device in ("lo", "cable"):
                    ip("-n", name, "link", "set", device, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL)

    def cable(self, state: str) -> None:
        ip("-n", self.names[1], "link", "set", "cable", state)

    def torchrun(self, clone: Clone, *overrides: str) -> "list[subprocess.Popen[bytes]]":
        """train.py with a rank on each host, which writes `host0.txt` and `host1.txt`."""
        return [self._torchrun(host, clone, overrides) for host in (0, 1)]

    def _torchrun(self, host: int, clone: Clone, overrides: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        command = [
            "ip", "netns", "exec", self.names[host], sys.executable, "-m", "torch.distributed.run", "--nnodes=2",
            f"--node-rank={host}", "--nproc-per-node=1", f"--master-addr={ADDRESSES[0]}", "--master-port=29400",
            "train.py", "trainer.num_nodes=2", *clone.arguments, "logger=none", *overrides,
        ]  # fmt: skip
        environment = os.environ | clone.environment | {"GLOO_SOCKET_IFNAME": "cable"}
        with (clone.directory / f"host{host}.txt").open("w") as file:
            return subprocess.Popen(command, cwd=clone.directory, env=environment, stdout=file, stderr=file)


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        reason = "network namespaces need root and `ip`"
        if os.environ.get("TUBELET_CI") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with TwoHosts() as hosts:
        yield hosts


def test_a_cut_cable_ends_both_sides_naming_the_other_and_the_run_continues(
    hosts: TwoHosts, tmp_path: Path, tiny_arguments: Callable[..., list[str]]
) -> None:
    whole = Clone(tmp_path / "whole", tiny_arguments())
    assert [process.wait(PATIENCE) for process in hosts.torchrun(whole)] == [0, 0]

    clone = Clone(tmp_path / "cut", tiny_arguments())
    clone.slow.touch()
    processes = hosts.torchrun(clone, "resume=auto", "trainer.timeout_minutes=0.2")
    clone.after_step(25)
    hosts.cable("down")
    cut = time.monotonic()
    assert [process.wait(PATIENCE) for process in processes] == [1, 1]
    assert time.monotonic() - cut < 120
    advice = f"run the same command again with resume={clone.run.relative_to(clone.directory)}"
    for host, other in ((0, 1), (1, 0)):
        output = (clone.directory / f"host{host}.txt").read_text()
        assert f"LostRank: no answer from rank {other} on {socket.gethostname()}: {advice}" in output
    hosts.cable("up")
    clone.slow.unlink()
    assert [process.wait(PATIENCE) for process in hosts.torchrun(clone, "resume=auto")] == [0, 0]
    assert_equal(clone.run, whole.run)
