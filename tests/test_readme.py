"""The examples of the README are run: what it says of a new pretext task and of a new encoder."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from tubelet import load_model, run
from tubelet.config.compose import compose
from tubelet.weights.load import load_encoder

README = (Path(__file__).parents[1] / "README.md").read_text()


def example(heading: str) -> tuple[str, dict[str, str]]:
    """The Python of a section, and its yaml files by the name that their first line gives."""
    section = README.partition(f"### {heading}\n")[2].partition("\n### ")[0]
    blocks = re.findall(r"```(python|yaml)\n(.*?)```", section, re.DOTALL)
    python = "".join(text for kind, text in blocks if kind == "python")
    return python, {text.partition("\n")[0].removeprefix("# "): text for kind, text in blocks if kind == "yaml"}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both examples as `my_package`, their configs in `my_conf`; the current directory."""
    for heading in ("To add a pretext task", "To add an encoder"):
        python, files = example(heading)
        with (tmp_path / "my_package.py").open("a") as file:
            file.write(python)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_package", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(package: Path, videos: Path, name: str, *overrides: str) -> tuple[Path, dict[str, float]]:
    metrics = run.main(
        compose(
            f"hydra.searchpath=[file://{package / 'my_conf'}]", "experiment=demo_pretrain", f"name={name}",
            "data=manifest", f"data.train={videos}", f"data.val={videos}", "data.batch_size=2", "data.num_workers=0",
            "trainer=cpu", "trainer.precision=32-true", "trainer.log_every_n_steps=1", "logger=none",
            "callbacks.progress=null", *overrides,
        )
    )  # fmt: skip
    return sorted((package / "runs" / name).iterdir())[-1], metrics


def test_a_pretext_task(package: Path, videos: Path) -> None:
    """It trains, its moving average follows, and a run that is continued equals one that was never stopped."""
    settings = ["target=latent", "callbacks.checkpoints.keep_every_n_steps=2", "trainer.max_steps=4"]
    path, numbers = train(package, videos, "latent", *settings)
    model = load_model(path, trust=["my_package"])
    teacher, student = model.target.teacher.patch_embed.proj.weight, model.encoder.patch_embed.proj.weight
    assert 0 < (teacher - student).abs().max() < 0.02
    last = path / "checkpoints/last.ckpt"
    whole = torch.load(last, weights_only=True)["state_dict"]
    _, again = train(package, videos, "latent", *settings, f"resume='{path / 'checkpoints/step=2.ckpt'}'")
    continued = torch.load(last, weights_only=True)["state_dict"]
    assert again["train/loss"] == numbers["train/loss"]
    assert all(torch.equal(value, continued[name]) for name, value in whole.items())
    _, scores = train(package, videos, "tuned", "method=finetune", f"weights={path}", "trainer.max_steps=1")
    assert 0 <= scores["val/top1"] <= 1
    assert load_encoder(path).dim == 128


def test_an_encoder(package: Path, videos: Path) -> None:
    small = ["encoder=small", "encoder.image_size=32", "encoder.num_frames=8", "encoder.patch_size=8", "encoder.dim=64"]
    first, _ = train(package, videos, "small", *small, "trainer.max_steps=1")
    assert load_encoder(first, trust=["my_package"]).dim == 64
    settings = ["method=finetune", f"weights={first}", "optim.layer_decay=0.5", "trainer.max_steps=1"]
    _, scores = train(package, videos, "tuned", *small, *settings)
    assert 0 <= scores["val/top1"] <= 1
