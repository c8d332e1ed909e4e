"""The nearest videos of a list, by features."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tubelet.cli import app
from tubelet.data.transforms import Preprocess
from tubelet.encoders.base import Encoder
from tubelet.encoders.vit import VideoViT
from tubelet.evaluate.features import extract_features, read_features
from tubelet.evaluate.neighbours import find_neighbours, save_neighbours


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    encoder = VideoViT(image_size=16, num_frames=4, patch_size=8, dim=24, depth=1, num_heads=2).eval()
    encoder.preprocess = Preprocess(stride=1)  # type: ignore[assignment]
    return encoder


@pytest.fixture(scope="module")
def features(encoder: Encoder, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_features(encoder, videos, tmp_path_factory.mktemp("f") / "f.safetensors", num_workers=0)


def test_the_nearest_come_first_and_the_video_itself_does_not(
    encoder: Encoder, features: Path, videos: Path, tmp_path: Path
) -> None:
    video = videos.parent / "2.mp4"
    found = find_neighbours(encoder, videos, video, k=3, features=features)
    rows, _, paths = read_features(features)
    others = [0, 1, 3, 4, 5]
    bank = rows[others]
    mean, std = bank.mean(0), bank.std(0, correction=0)
    cosines = torch.cosine_similarity((bank - mean) / std, ((rows[2] - mean) / std)[None])
    expected = sorted(zip(cosines.tolist(), others, strict=True), reverse=True)[:3]
    assert [each.line for each in found] == [line for _, line in expected]
    assert [each.cosine for each in found] == pytest.approx([cosine for cosine, _ in expected], abs=1e-4)
    assert [each.path for each in found] == [paths[line] for _, line in expected]
    assert [each.label for each in found] == [["zero", "one", "two"][line % 3] for _, line in expected]
    assert find_neighbours(encoder, videos, video, k=3, num_workers=0) == found  # computed again
    assert len(find_neighbours(encoder, videos, video, k=99, features=features)) == 5

    save_neighbours(encoder, videos, video, found, tmp_path / "n.png")
    assert Image.open(tmp_path / "n.png").size == (4 * (128 + 2), 4 * (128 + 2 + 14))
    save_neighbours(encoder, videos, video, found, tmp_path / "n.gif")
    assert Image.open(tmp_path / "n.gif").n_frames == 4


def test_features_of_something_else_are_refused(encoder: Encoder, features: Path, videos: Path, tmp_path: Path) -> None:
    video = videos.parent / "0.mp4"
    shorter = tmp_path / "shorter.csv"
    shorter.write_text(f"path\n{video}\n")
    with pytest.raises(ValueError, match=r"shorter\.csv holds no other video than .*0\.mp4"):
        find_neighbours(encoder, shorter, video)
    shorter.write_text(f"path\n{video}\n{videos.parent / '1.mp4'}\n")
    with pytest.raises(ValueError, match="features of another list: 6 videos, this one has 2"):
        find_neighbours(encoder, shorter, video, features=features)
    narrow = VideoViT(image_size=16, num_frames=4, patch_size=8, dim=12, depth=1, num_heads=2)
    narrow.preprocess = Preprocess(stride=1)  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"\[6, 24\] of another kind, this model makes \[n,12\]"):
        find_neighbours(narrow, videos, video, features=features)
    other = VideoViT(image_size=16, num_frames=4, patch_size=8, dim=24, depth=1, num_heads=2)
    other.preprocess = Preprocess(stride=1)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="holds the features of another model"):
        find_neighbours(other, videos, video, features=features)
    with pytest.raises(ValueError, match=r"shorter\.csv is no file of `tubelet features`"):
        find_neighbours(encoder, videos, video, features=shorter)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        find_neighbours(encoder, videos, video, k=0, features=features)


def test_the_commands_look_at_the_ending_first() -> None:
    for command in (["neighbours", "model", "list.csv", "v.mp4"], ["colours", "model", "v.mp4"]):
        error = CliRunner().invoke(app, [*command, "--out", "x.jpg"]).exception
        assert "cannot write 'x.jpg'" in str(error)
