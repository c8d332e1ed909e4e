import socket
import time
from pathlib import Path
from typing import Any

import pytest
import wandb
from offline_file import read_offline
from PIL import Image

from tubelet.loggers import wandb as wandb_module
from tubelet.loggers.results import log_results
from tubelet.loggers.wandb import close_wandb, wandb_logger


@pytest.fixture(autouse=True)
def _nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key anywhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


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


def test_the_environment_says_what_the_config_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wandb_logger(tmp_path, {}).arguments["project"] == "tubelet"
    monkeypatch.setenv("WANDB_PROJECT", "p")
    monkeypatch.setenv("WANDB_ENTITY", "e")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    found = wandb_logger(tmp_path, {}).arguments
    assert (found["project"], found["entity"], found["mode"]) == ("p", "e", "disabled")
    found = wandb_logger(tmp_path, {}, project="mine", entity="me", mode="offline").arguments
    assert (found["project"], found["entity"], found["mode"]) == ("mine", "me", "offline")
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert mode(tmp_path) == "offline"


def test_disabled_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = wandb_logger(tmp_path, {})
    logger.log_metrics({"loss": 1.0}, step=0)
    wandb.finish()
    assert not (tmp_path / "wandb").exists()


@pytest.mark.parametrize("kind", ["refuses", "is silent", "is not W&B"])
def test_a_key_and_no_server_is_logged_offline_and_said_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(wandb_module, "PATIENCE", 0.5)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if kind != "refuses":
            server.listen()
        if kind == "is not W&B":  # it answers, and wandb itself fails
            monkeypatch.setattr(wandb_module, "_answers", lambda _: True)
            init = wandb.init
            monkeypatch.setattr(
                wandb, "init", lambda **arguments: no_server() if online(arguments) else init(**arguments)
            )
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        logger = wandb_logger(tmp_path, {})
        start = time.monotonic()
        for step in range(3):
            logger.log_metrics({"loss": 1.0}, step=step)
        assert time.monotonic() - start < 30  # 161 s without this
        wandb.finish()
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1
    assert caplog.text.count("This run is logged offline") == 1


def online(arguments: dict[str, Any]) -> bool:
    return bool(arguments["mode"] == "online")


def no_server() -> None:
    raise wandb.errors.CommError("no server")


def test_online_does_not_fall_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "init", lambda **_: no_server())
    with pytest.raises(wandb.errors.CommError):
        wandb_logger(tmp_path, {}, mode="online").log_metrics({"loss": 1.0}, step=0)


CONFIG = {
    "name": "study",
    "stage": "fit",
    "encoder": {"_target_": "tubelet.encoders.vit.VideoViT", "dim": 128},
    "masking": {"_target_": "tubelet.masking.tube", "ratio": 0.5},
    "target": {"_target_": "tubelet.targets.hog.HOG"},
    "model": {"target": {}},
    "method": {"_target_": "tubelet.methods.pretraining.Pretraining"},
}


def test_the_offline_file_holds_all_that_was_logged(tmp_path: Path) -> None:
    """The run, and then, opened once more, the results of its probes."""
    run = tmp_path / "sweep_masking" / "ratio-0.5"
    (run / "reconstructions").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(run / "x.png")
    logger = wandb_logger(run, CONFIG)
    logger.log_metrics({"train/loss": 0.5}, step=1)
    logger.log_metrics({"train/loss": 0.25}, step=2)
    logger.log_image("reconstructions", [str(run / "x.png")])
    close_wandb()
    (run / "summary.json").write_text('{"steps": 2, "train/loss": 0.25}')
    log_results([wandb_logger(run, CONFIG)], run, {"knn/top1": 0.75})
    assert logger.sync_command == f"wandb sync {run}/wandb/offline-run-*"

    found = read_offline(run)
    about = found["run"]
    assert (about.run_group, about.job_type, about.display_name) == ("sweep_masking", "pretraining", "ratio-0.5")
    assert list(about.tags) == ["study", "VideoViT", "tube", "HOG"]
    assert about.run_id == (run / "wandb_id.txt").read_text()
    assert CONFIG.items() <= found["config"].items()
    assert {"tubelet", "python", "torch", "device", "command"} <= found["config"]["environment"].keys()
    rows = [row for row in found["history"] if "train/loss" in row]
    assert [(row["trainer/global_step"], row["train/loss"]) for row in rows] == [(1, 0.5), (2, 0.25)]
    assert list(run.glob("wandb/*/files/media/images/*.png"))
    assert {"steps": 2, "train/loss": 0.25, "knn/top1": 0.75}.items() <= found["parts"][-1].items()


def test_a_probe_is_grouped_with_its_point(tmp_path: Path) -> None:
    probe = tmp_path / "sweep_masking" / "ratio-0.5" / "probes" / "linear"
    probe.mkdir(parents=True)
    found = wandb_logger(probe, {**CONFIG, "model": {}}).arguments
    assert (found["group"], found["job_type"], found["name"]) == ("sweep_masking", "linear", "ratio-0.5/linear")
    assert found["tags"] == ["study", "VideoViT"]
    found = wandb_logger(probe, {**CONFIG, "stage": "test"}, group="g", job_type="j", tags=[]).arguments
    assert (found["group"], found["job_type"], found["tags"]) == ("g", "j", [])
    assert wandb_logger(probe.parents[1], {"stage": "test"}).arguments["job_type"] == "test"
