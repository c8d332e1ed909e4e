"""What we write is read, and what they write is read here, by versions of transformers whose names differ.

Each version is installed by pip into a folder of its own, so this needs the network.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from tubelet.decoders.self_attention import SelfAttentionDecoder
from tubelet.encoders.timesformer import TimeSformer
from tubelet.encoders.vit import VideoViT
from tubelet.encoders.vivit import ViViT
from tubelet.masking import Mask
from tubelet.models.classifier import VideoClassifier
from tubelet.models.masked import MaskedModel
from tubelet.weights.load import load_model
from tubelet.weights.save import save_pretrained

VERSIONS = {
    "4.57.6": ["tokenizers==0.22.2", "huggingface-hub<1"],
    "5.10.4": ["tokenizers==0.22.2", "huggingface-hub>=1.5,<2"],
    "5.20.2": ["tokenizers>=0.23.1,<0.24", "huggingface-hub>=1.31,<3"],
}
"""Version -> what it needs in addition to the packages of this environment."""
SMALL = {"image_size": 32, "num_frames": 4, "dim": 24, "depth": 2, "num_heads": 2}
DECODER = partial(SelfAttentionDecoder, dim=12, depth=1, num_heads=2, norm_eps=1e-5)
MODELS = {
    "VideoMAEForVideoClassification": lambda: VideoClassifier(VideoViT(**SMALL, final_norm=False), 3),
    "VideoMAEForPreTraining": lambda: MaskedModel(VideoViT(**SMALL), DECODER),
    "VivitForVideoClassification": lambda: VideoClassifier(ViViT(**SMALL), 3, pool="cls"),
    "TimesformerForVideoClassification": lambda: VideoClassifier(TimeSformer(**SMALL), 3, pool="cls"),
}
THEIRS = """
import sys, torch, transformers
assert transformers.__version__ == sys.argv[1], transformers.__version__
for name in sys.argv[2:]:
    model = getattr(transformers, name).from_pretrained(name).eval()
    inputs = torch.load("inputs.pt")
    mask = {"bool_masked_pos": inputs["hidden"]} if "PreTraining" in name else {}
    with torch.no_grad():
        torch.save(model(inputs["clip"].transpose(1, 2), **mask).logits, name + ".pt")
    model.save_pretrained(name + "_theirs")
"""


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_both_directions(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", "packages"]
    subprocess.run([*pip, "--no-deps", f"transformers=={version}"], cwd=tmp_path, check=True)
    subprocess.run([*pip, *VERSIONS[version]], cwd=tmp_path, check=True)
    clip, hidden = torch.randn(1, 3, 4, 32, 32), (torch.arange(8) % 2 == 0)[None]
    torch.save({"clip": clip, "hidden": hidden}, tmp_path / "inputs.pt")
    expected = {}
    for name, make in MODELS.items():
        model = make().eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        save_pretrained(model, tmp_path / name)
        expected[name] = numbers(model, clip, hidden)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    subprocess.run([sys.executable, "-c", THEIRS, version, *MODELS], cwd=tmp_path, check=True)
    for name in MODELS:
        assert (torch.load(tmp_path / f"{name}.pt") - expected[name]).abs().max() < 1e-5, name
        again = numbers(load_model(tmp_path / f"{name}_theirs"), clip, hidden)
        assert (again - expected[name]).abs().max() < 1e-5, name


@torch.no_grad()
def numbers(model: torch.nn.Module, clip: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    return model(clip, Mask.from_hidden(hidden)).prediction if isinstance(model, MaskedModel) else model(clip)
