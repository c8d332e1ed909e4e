from pathlib import Path

import pytest

from tubelet.loggers.wandb import wandb_logger


@pytest.fixture(autouse=True)
def _nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key anywhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)


def mode(tmp_path: Path) -> str:
    return str(wandb_logger(tmp_path, {})._wandb_init["mode"])


def test_a_resumed_run_keeps_its_id(tmp_path: Path) -> None:
    first = wandb_logger(tmp_path, {}).version
    assert first == (tmp_path / "wandb_id.txt").read_text()
    again = wandb_logger(tmp_path, {})
    assert again.version == first
    assert again._wandb_init["resume"] == "allow"
    (tmp_path / "other").mkdir()
    assert wandb_logger(tmp_path / "other", {}).version != first


def test_offline_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mode(tmp_path) == "offline"
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert mode(tmp_path) == "online"
    (tmp_path / ".netrc").write_text("machine else.where login user password secret\n")
    assert mode(tmp_path) == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert mode(tmp_path) == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert mode(tmp_path) == "offline"


def test_a_rank_that_logs_nothing_makes_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    wandb_logger(tmp_path, {})
    assert not (tmp_path / "wandb_id.txt").exists()
