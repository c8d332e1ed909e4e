"""How ranks that torchrun or SLURM started agree; whole runs of them are in test_launchers.py."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch.distributed as dist

from tubelet.runtime.ranks import Ranks, join


def four(ask: Callable[[Ranks], Any]) -> list[Any]:
    """What each of four ranks on two nodes gets, or the error it ends by."""
    store = dist.HashStore()

    def one(rank: int) -> Any:
        try:
            return ask(Ranks(rank, 4, rank % 2, store, launched=True))
        except (Exception, SystemExit) as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, range(4)))


def test_rank_0_decides_for_all() -> None:
    called: list[int] = []

    def ask(ranks: Ranks) -> list[str]:
        return [ranks.from_first(lambda: called.append(ranks.rank) or len(called)) for _ in range(3)]

    assert four(ask) == [[1, 2, 3]] * 4
    assert called == [0, 0, 0]


def test_one_rank_of_every_node_prepares() -> None:
    called: list[int] = []
    assert four(lambda ranks: ranks.once_per_node(lambda: called.append(ranks.rank))) == [None] * 4
    assert sorted(called) == [0, 2]


@pytest.mark.parametrize(("error", "code"), [(ValueError("no such key"), 2), (OSError("disk"), 1)])
def test_all_end_by_one_error(error: Exception, code: int) -> None:
    def fail() -> None:
        raise error

    ends = four(lambda ranks: ranks.from_first(fail))
    assert ends[0] is error
    assert [type(end) for end in ends[1:]] == [SystemExit] * 3
    assert {end.code for end in ends[1:]} == {code}


def test_the_trainer_counts_on_as_many_as_were_started() -> None:
    four(lambda ranks: ranks.check(2, 2))
    with pytest.raises(ValueError, match=r"started 4 processes in all, but .* is 1 x 1"):
        Ranks(0, 4, launched=True).check(1, 1)
    with pytest.raises(ValueError, match="1 processes"):
        Ranks(launched=True).check(2, 1)
    Ranks().check(2, 1)  # Lightning will start the other
    with pytest.raises(ValueError, match=r"trainer\.num_nodes is 2: start the processes by torchrun or srun"):
        Ranks().check(1, 2)


def test_alone_without_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    ranks = join.__wrapped__("cpu", 1.0)
    assert (ranks.rank, ranks.size, ranks.launched) == (0, 1, False)
    assert ranks.from_first(lambda: 5) == 5


def test_slurm_settings_that_will_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE", raising=False)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    with pytest.raises(ValueError, match="ntasks-per-node"):
        join.__wrapped__("cpu", 1.0)
