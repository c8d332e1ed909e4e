"""Small real video files for every test that reads any."""

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: models here are tiny, and ranks would fight for cores

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from small_videos import VIDEO_FRAMES, video_frame, write_video


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of six H.264 files beside it: 0.mp4 .. 5.mp4, labels 0, 1, 2, 0, 1, 2, the last only 5 frames long."""
    directory = tmp_path_factory.mktemp("videos")
    for video, frames in enumerate(VIDEO_FRAMES):
        write_video(directory / f"{video}.mp4", [video_frame(video, number) for number in range(frames)])
    lines = ["path,label", *(f"{video}.mp4,{video % 3}" for video in range(len(VIDEO_FRAMES)))]
    (directory / "videos.csv").write_text("\n".join(lines) + "\n")
    (directory / "labels.txt").write_text("zero\none\ntwo\n")
    return directory / "videos.csv"


@pytest.fixture(scope="session")
def tiny_arguments(videos: Path) -> Callable[..., list[str]]:
    """What the command line says for the smallest model on `videos`.

    `tiny_arguments(*more)` pretrains; `tiny_arguments(*more, method="finetune")` classifies.
    """

    def arguments(*more: str, method: str = "mae") -> list[str]:
        choices = [
            "experiment=demo_pretrain" if method == "mae" else "experiment=demo_finetune", f"method={method}",
            "name=try", "data=manifest", f"data.train={videos}", f"data.val={videos}", "data.batch_size=2",
            "data.num_workers=0", "data.stride=2", "data.repeats=1", "data.prepare=null", "encoder.num_frames=4",
            "encoder.image_size=16", "encoder.dim=24", "encoder.depth=2", "encoder.num_heads=2",
            "encoder.position=sincos",
            "optim.warmup_epochs=1",
            "trainer=cpu", "trainer.precision=32-true", "trainer.max_steps=-1", "trainer.max_epochs=2",
            "trainer.log_every_n_steps=1", "trainer.val_every_n_epochs=1", "logger=none", "callbacks.progress=null",
        ]  # fmt: skip
        if method == "mae":
            choices += [
                "decoder.dim=16",
                "decoder.position=sincos",
                "decoder.depth=1",
                "callbacks.reconstructions=null",
            ]
        return [*choices, *more]

    return arguments


@pytest.fixture
def tiny(
    tiny_arguments: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., DictConfig]:
    """Compose the config of `tiny_arguments`, in whose runs the current directory is `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def config(*more: str, method: str = "mae") -> DictConfig:
        with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
            return compose("config", tiny_arguments(*more, method=method))

    return config
