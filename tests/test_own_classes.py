"""Encoder, decoder, target, masking and method of a user's own package, from conf to everything that comes after."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tubelet import load_model, run
from tubelet.config.compose import compose
from tubelet.evaluate.features import extract_features, read_features
from tubelet.evaluate.pictures import save_reconstructions
from tubelet.evaluate.reconstruction import reconstruct_file
from tubelet.weights.load import load_encoder, load_masking

PACKAGE = '''
import torch
from torch import nn
from tubelet.clip import ClipGrid
from tubelet.decoders.base import Decoder
from tubelet.encoders.base import Encoder
from tubelet.methods.pretraining import Pretraining
from tubelet.targets.pixels import Pixels

class Plain(nn.Module):
    """No block of tubelet, and the list that holds it is not called `blocks`."""
    def __init__(self, dim):
        super().__init__()
        self.mix = nn.Linear(dim, dim)
    def forward(self, x):
        return x + self.mix(x).relu()

class MyEncoder(Encoder):
    def __init__(self, image_size=16, num_frames=4, patch_size=8, tubelet_size=2, dim=24, depth=2, drop_path=0.0):
        super().__init__()
        self.grid = ClipGrid(num_frames, image_size, image_size, tubelet_size, patch_size)
        self.dim, self.in_channels = dim, 3
        self.embed = nn.Conv3d(3, dim, (tubelet_size, patch_size, patch_size), (tubelet_size, patch_size, patch_size))
        self.places = nn.Parameter(torch.randn(1, self.grid.N, dim))
        self.stages = nn.ModuleList(Plain(dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
    def layers(self):
        return [self.embed, *self.stages, self.norm]
    def forward(self, clip, mask=None, return_hidden_states=False, return_attentions=False):
        x = self.embed(clip).flatten(2).transpose(1, 2) + self.places  # [B,N,D]
        if mask is not None:
            x = x.gather(1, mask.visible[..., None].expand(-1, -1, self.dim))
        for stage in self.stages:
            x = stage(x)
        return self.norm(x)

class MyDecoder(Decoder):
    def __init__(self, encoder, target_dim):
        super().__init__()
        self.first, self.only = nn.Linear(encoder.dim, 8), Plain(8)
        self.places = nn.Parameter(torch.randn(1, encoder.grid.N, 8))
        self.last = nn.Linear(8, target_dim)
    def layers(self):
        return [self.first, self.only, self.last]
    def forward(self, tokens, mask):
        x = self.first(tokens.mean(1, keepdim=True)) + self.places[0, mask.hidden]
        return self.last(self.only(x))

class Colour(Pixels):
    """The mean colour of a patch; drawn as such."""
    def __init__(self, encoder, preprocess):
        super().__init__(encoder, preprocess, normalise=False)
        self.dim = 3
    @torch.no_grad()
    def forward(self, clip, mask):
        return self.hidden_pixels(clip, mask).mean(2)
    def baselines(self, truth):
        return {}
    def to_pixels(self, prediction, clip, mask):
        return prediction[:, :, None].expand(-1, -1, self.grid.patch_numel(1), -1).flatten(2)

class Blind(Colour):
    to_pixels = None

def halves(grid, ratio, generator):
    hidden = torch.zeros(grid.t, grid.h, grid.w, dtype=torch.bool)
    hidden[:, : int(ratio * grid.h)] = True
    return hidden.flatten()

class Doubled(Pretraining):
    def step(self, batch):
        result = super().step(batch)
        return type(result)(2 * result.loss, result.clips, result.metrics)
'''
CONF = {
    "encoder/mine.yaml": (
        "_target_: throwaway.MyEncoder\nimage_size: 16\nnum_frames: 4\npatch_size: 8\ntubelet_size: 2\n"
        "dim: 24\ndepth: 2\ndrop_path: 0.0\n"
    ),
    "decoder/mine.yaml": "_target_: throwaway.MyDecoder\n_partial_: true\n",
    "target/colour.yaml": "_target_: throwaway.Colour\n_partial_: true\n",
    "masking/halves.yaml": "_target_: throwaway.halves\n_partial_: true\nratio: 0.5\n",
    "method/doubled.yaml": "defaults: [mae, _self_]\n_target_: throwaway.Doubled\n",
}
ALL = ["encoder=mine", "decoder=mine", "target=colour", "masking=halves", "method=doubled"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `throwaway` and a folder of configs, outside of the tree; the current directory."""
    (tmp_path / "throwaway.py").write_text(PACKAGE)
    for name, text in CONF.items():
        file = tmp_path / "my_conf" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "throwaway", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(own: Path, videos: Path, name: str, *overrides: str) -> list[str]:
    return [
        f"hydra.searchpath=[file://{own / 'my_conf'}]", "experiment=demo_pretrain", f"name={name}", "data=manifest",
        f"data.train={videos}", f"data.val={videos}", "data.batch_size=2", "data.repeats=1", "data.num_workers=0",
        "data.stride=1", "trainer=cpu", "trainer.precision=32-true", "trainer.val_every_n_epochs=1",
        "trainer.log_every_n_steps=1", "logger=none", "callbacks.progress=null", *overrides,
    ]  # fmt: skip


def train(own: Path, videos: Path, name: str, *overrides: str) -> tuple[Path, dict[str, float]]:
    metrics = run.main(compose(*arguments(own, videos, name, *overrides)))
    return sorted((own / "runs" / name).iterdir())[-1], metrics


def test_a_run_of_own_classes_only(own: Path, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    switches = ["trainer.activation_checkpointing=true"]
    first, numbers = train(own, videos, "own", *ALL, *switches, "trainer.max_steps=2")
    assert "--trust throwaway" in capsys.readouterr().out  # of the command to try next
    _, continued = train(own, videos, "own", *ALL, *switches, f"resume={first}", "trainer.max_steps=3")
    assert continued["train/loss"] != numbers["train/loss"]
    model = load_model(first, trust=["throwaway"])
    picture = reconstruct_file(model, videos.parent / "0.mp4", load_masking(first, trust=["throwaway"]))
    assert save_reconstructions(picture, "x.png").exists()
    encoder = load_encoder(first, trust=["throwaway"])
    features, _, _ = read_features(extract_features(encoder, videos, "f.safetensors", num_workers=0))
    assert features.shape == (6, 24)
    tuned, scores = train(
        own, videos, "tuned", *ALL[:1], "method=finetune", f"weights={first}", "optim.layer_decay=0.5",
        "trainer.max_steps=1",
    )  # fmt: skip
    assert 0 <= scores["val/top1"] <= 1
    classifier = load_model(tuned, trust=["throwaway"])
    assert (classifier.num_classes, classifier.pool) == (3, "mean")
    assert load_model(first, trust=["throwaway"], num_classes=5)(torch.zeros(1, 3, 4, 16, 16)).shape == (1, 5)
    probed, _ = train(own, videos, "probed", *ALL[:1], "method=linear", f"weights={first}", "trainer.max_steps=1")
    assert load_model(probed, trust=["throwaway"]).num_classes == 3


def test_a_file_imports_nothing_that_was_not_named(own: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = train(own, videos, "own", *ALL, "trainer.max_steps=1")
    monkeypatch.delitem(sys.modules, "throwaway")
    for load in (load_model, load_encoder, load_masking):
        with pytest.raises(ValueError, match=r"trust=\['throwaway'\].*--trust throwaway"):
            load(path)
    assert "throwaway" not in sys.modules


def test_an_encoder_of_tubelet_is_loaded_whatever_it_was_trained_with(own: Path, videos: Path) -> None:
    path, _ = train(own, videos, "mixed", *ALL[1:], "trainer.max_steps=1")
    assert load_encoder(path).dim == 128
    _, scores = train(own, videos, "tuned", "method=finetune", f"weights={path}", "trainer.max_steps=1")
    assert 0 <= scores["val/top1"] <= 1


def test_a_target_that_cannot_be_drawn_ends_as_cleanly(
    own: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = train(own, videos, "blind", "target=colour", "target._target_=throwaway.Blind", "trainer.max_steps=1")
    assert not (path / "reconstructions").exists()
    assert "tubelet features" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_the_command_line(own: Path, videos: Path) -> None:
    """`--config-dir` finds the configs, the current directory the package."""
    script = str(Path(__file__).parents[1] / "train.py")
    rest = arguments(own, videos, "own", *ALL, "trainer.max_steps=1")[1:]
    subprocess.run([sys.executable, script, "--config-dir", "my_conf", *rest], check=True, timeout=250)
    (path,) = (own / "runs" / "own").iterdir()
    command = [sys.executable, "-m", "tubelet.cli", "reconstruct", str(path), str(videos.parent / "0.mp4")]
    refused = subprocess.run([*command, "--out", "x.gif"], capture_output=True, text=True, timeout=250)
    assert refused.returncode == 2
    assert "--trust throwaway" in refused.stderr
    subprocess.run([*command, "--out", "x.gif", "--trust", "throwaway"], check=True, timeout=250)
    assert (own / "x.gif").exists()
