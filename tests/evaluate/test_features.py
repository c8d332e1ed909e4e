from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tubelet.data.load_clip import load_clip
from tubelet.data.transforms import Preprocess
from tubelet.encoders.vit import VideoViT
from tubelet.evaluate import features
from tubelet.models.classifier import VideoClassifier


@pytest.fixture
def model() -> VideoClassifier:
    torch.manual_seed(0)
    encoder = VideoViT(image_size=16, num_frames=4, patch_size=8, dim=24, depth=1, num_heads=2)
    return VideoClassifier(encoder, 3, preprocess=Preprocess(stride=2)).eval()


@pytest.mark.parametrize("per_token", [False, True])
def test_every_video_in_order(model: VideoClassifier, videos: Path, tmp_path: Path, per_token: bool) -> None:
    settings = {"per_token": per_token, "batch_size": 4, "num_workers": 0}
    features.extract_features(model, videos, tmp_path / "f.safetensors", **settings)
    found, label, paths = features.read_features(tmp_path / "f.safetensors")
    with torch.no_grad():
        tokens = torch.cat([model.encoder(load_clip(path, model)) for path in paths])
    expected = tokens.half() if per_token else tokens.mean(1)
    assert torch.allclose(found.float(), expected.float(), atol=2e-3 if per_token else 1e-5)
    assert label.tolist() == [0, 1, 2, 0, 1, 2]
    assert [Path(path).name for path in paths] == [f"{i}.mp4" for i in range(6)]
    assert [file.name for file in tmp_path.iterdir()] == ["f.safetensors"]


def test_an_interrupted_run_goes_on(
    model: VideoClassifier, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_BATCHES_PER_PART", 1)
    settings = {"batch_size": 2, "num_workers": 0}
    out = tmp_path / "f.safetensors"
    features.extract_features(model, videos, tmp_path / "whole.safetensors", **settings)
    calls = []

    def dies_at_the_third(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
        calls.append(path.name)
        if len(calls) == 3:
            raise KeyError("power cut")
        save_file(tensors, path, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(features, "_save", dies_at_the_third)
        with pytest.raises(KeyError, match="power cut"):
            features.extract_features(model, videos, out, **settings)
    with pytest.raises(ValueError, match="another model, manifest or settings"):
        features.extract_features(model, videos, out, batch_size=3, num_workers=0)
    read = []
    real = features.pooled_features
    monkeypatch.setattr(features, "pooled_features", lambda e, c: (read.append(len(c)), real(e, c))[1])
    features.extract_features(model, videos, out, **settings)
    assert read == [2]  # the last part alone
    assert torch.equal(features.read_features(out)[0], features.read_features(tmp_path / "whole.safetensors")[0])
