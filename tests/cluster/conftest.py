"""A small SLURM for all tests of this folder, and what submits jobs to it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jobs import Jobs
from small_slurm import SmallSlurm, missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(1800))  # jobs wait for each other


@pytest.fixture(scope="session")
def slurm() -> Iterator[SmallSlurm]:
    """Skips without SLURM or root; where CI has installed it (TUBELET_CI=1), that is an error."""
    if reason := missing():
        if os.environ.get("TUBELET_CI") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with SmallSlurm() as cluster:
        yield cluster


@pytest.fixture
def jobs(slurm: SmallSlurm, tmp_path: Path, tiny_arguments: Callable[..., list[str]]) -> Iterator[Jobs]:
    with Jobs(slurm, tmp_path, tiny_arguments()) as jobs:
        yield jobs


@pytest.fixture(scope="session")
def whole(
    slurm: SmallSlurm, tmp_path_factory: pytest.TempPathFactory, tiny_arguments: Callable[..., list[str]]
) -> Path:
    """The run directory of a job that nothing interrupted."""
    with Jobs(slurm, tmp_path_factory.mktemp("whole"), tiny_arguments()) as jobs:
        jobs.train().ended()
        return jobs.run
