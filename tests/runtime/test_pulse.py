"""Who is gone. With real hosts: tests/cluster/test_two_hosts.py."""

import socket
import subprocess
import sys
import time

import pytest
import torch.distributed as dist

from tubelet.runtime import pulse
from tubelet.runtime.pulse import Pulse
from tubelet.runtime.ranks import LostRank, Ranks


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> dist.Store:
    """Of three ranks: 1 has died on a host `far`, 2 lives and is asked for by every test."""
    monkeypatch.setattr(pulse, "BEAT", 0.05)
    store = dist.HashStore()
    store.set("pulse/host/1", "far")
    store.set("pulse/beat/1", "7")
    for rank in (0, 2):
        store.set(f"pulse/host/{rank}", socket.gethostname())
    Pulse(store, 2, 3)
    return store


def test_a_rank_without_a_sign_of_life_is_named(store: dist.Store) -> None:
    assert Pulse(store, 0, 3).lost() == ["rank 1 on far"]


def test_one_that_has_just_asked_itself_is_not_lost(store: dist.Store) -> None:
    store.set("pulse/asks/1", "")
    assert Pulse(store, 0, 3).lost() == []


def test_behind_a_cut_link_it_is_rank_0(store: dist.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pulse, "_beats", lambda _: time.sleep(60))
    assert Pulse(store, 1, 3).lost() == [f"rank 0 on {socket.gethostname()}"]


@pytest.mark.parametrize(
    "error", [RuntimeError("[gloo/transport/tcp] Timed out waiting 12000ms"), dist.DistBackendError("NCCL error")]
)
def test_a_failed_collective_names_the_lost_rank(store: dist.Store, error: RuntimeError) -> None:
    ranks = Ranks(0, 3, pulse=Pulse(store, 0, 3))
    with pytest.raises(LostRank, match="no answer from rank 1 on far: try again"), ranks.naming_lost_ranks("try again"):
        raise error


def test_other_errors_stay_what_they_are(store: dist.Store) -> None:
    for ranks in (Ranks(0, 3, pulse=Pulse(store, 0, 3)), Ranks()):
        with pytest.raises(RuntimeError, match="out of memory"), ranks.naming_lost_ranks("try again"):
            raise RuntimeError("out of memory")


def test_a_process_ends_in_peace_whatever_its_sign_of_life_is_doing() -> None:
    """C++ code that wants Python back while Python ends aborts the process: exit status 134 of a finished run."""
    program = (
        "import torch.distributed as dist\nfrom tubelet.runtime import pulse\npulse.BEAT = 1e-5\n"
        "pulse.Pulse(dist.TCPStore('127.0.0.1', 0, 1, True), 0, 1)"
    )
    for _ in range(2):  # without the stop, about five of six processes are aborted
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
