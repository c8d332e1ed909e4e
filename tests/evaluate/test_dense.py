"""Features of windows equal those of the clips that `load_clip` cuts one by one, in every kind of file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from typer.testing import CliRunner

from tubelet.cli import app
from tubelet.data.load_clip import load_clip
from tubelet.data.manifest import Record
from tubelet.data.transforms import Preprocess
from tubelet.encoders.vit import VideoViT
from tubelet.encoders.vivit import FactorisedViViT, ViViT
from tubelet.evaluate import dense
from tubelet.evaluate.dense import Windows, extract_windows, list_videos, name_videos
from tubelet.models.masked import MaskedModel
from tubelet.weights.load import load_encoder
from tubelet.weights.save import save_pretrained

SIZES = {"image_size": 16, "num_frames": 4, "patch_size": 8, "dim": 24, "depth": 2, "num_heads": 2}


@pytest.fixture
def model() -> MaskedModel:
    torch.manual_seed(0)
    return MaskedModel(VideoViT(**SIZES), preprocess=Preprocess(stride=2)).eval()


@pytest.fixture
def named(videos: Path) -> dict[str, Record]:
    return list_videos([videos])


@torch.no_grad()
def one_by_one(model: MaskedModel, record: Record, starts: list[float]) -> np.ndarray:
    return torch.cat([model.encoder(load_clip(record.path, model, start=start)).mean(1) for start in starts]).numpy()


def test_every_window_of_every_video(model: MaskedModel, named: dict[str, Record], tmp_path: Path) -> None:
    assert extract_windows(model, named, tmp_path / "out", Windows(stride=3), batch_size=7) == []
    for name, record in named.items():
        features = np.load(tmp_path / f"out/{name}.npy")
        about = json.loads((tmp_path / f"out/{name}.json").read_text())
        assert len(features) == len(about["start"]) == (7 if name != "5" else 1)
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, one_by_one(model, record, about["start"]), atol=1e-5, rtol=0)
        assert about["valid"] == ([4] * 6 + [2] if name != "5" else [3])
        assert about["end"][-1] == pytest.approx(about["duration"], abs=1e-5)
    index = json.loads((tmp_path / "out/features.json").read_text())
    assert index["database"]["0"] == {
        "video": named["0"].path, "fps": 24.0, "duration": pytest.approx(40 / 24), "frame": 40
    }  # fmt: skip
    # of window k both take frame 6 * k + 4 of the file for the middle
    assert (index["actionformer"]["feat_stride"], index["actionformer"]["num_frames"]) == (6, 8)
    assert index["opentad"] == {"feature_stride": 6, "sample_stride": 1, "offset_frames": 4}


def test_one_file_for_all_and_other_kinds(model: MaskedModel, named: dict[str, Record], tmp_path: Path) -> None:
    settings = Windows(stride=3)
    extract_windows(model, named, tmp_path / "npy", settings)
    expected = np.concatenate([np.load(tmp_path / f"npy/{name}.npy") for name in named])
    extract_windows(model, named, tmp_path / "all.safetensors", settings)
    extract_windows(model, named, tmp_path / "all.arrow", settings)
    tensors = load_file(tmp_path / "all.safetensors")
    table = pa.ipc.open_file(str(tmp_path / "all.arrow")).read_all()
    np.testing.assert_allclose(tensors["features"], expected, atol=1e-6)
    np.testing.assert_allclose(np.stack(table["features"].to_numpy()), expected, atol=1e-6)
    for name in ("start", "end", "valid", "video"):
        assert table[name].to_pylist() == tensors[name].tolist()
    assert tensors["video"].tolist() == [i for i, name in enumerate(named) for _ in range(7 if name != "5" else 1)]
    with safe_open(tmp_path / "all.safetensors", "np") as file:
        info = json.loads(file.metadata()["info"])
    assert [video["name"] for video in info["videos"]] == list(named)
    assert info["settings"]["stride"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.arrow", "all.safetensors", "npy"]
    for kind in ("safetensors", "arrow"):
        extract_windows(model, named, tmp_path / kind, settings, kind=kind)
        database = json.loads((tmp_path / kind / "features.json").read_text())["database"]
        assert list(database) == list(named)


@pytest.mark.parametrize("encoder", [VideoViT, ViViT])
def test_layers_and_pools(encoder: type, named: dict[str, Record], tmp_path: Path) -> None:
    model = MaskedModel(encoder(**SIZES), preprocess=Preprocess(stride=2)).eval()
    one = {"0": named["0"]}

    def features(**settings: object) -> np.ndarray:
        extract_windows(model, one, tmp_path / "one.npy", Windows(**settings))
        return np.load(tmp_path / "one.npy").astype(np.float32)

    mean, prefix = features(), model.encoder.num_prefix_tokens
    both = features(layers=[1, 2])
    assert both.shape == (5, 48)
    np.testing.assert_allclose(both[:, 24:], mean, atol=1e-6)  # the last layer is what the encoder returns
    assert np.abs(both[:, :24] - mean).max() > 0.01
    tokens, steps = features(pool="tokens"), features(pool="spatial")
    assert (tokens.shape, steps.shape) == ((5, prefix + 8, 24), (5, 2, 24))
    np.testing.assert_allclose(tokens[:, prefix:].reshape(5, 2, 4, 24).mean(2), steps, atol=1e-6)
    np.testing.assert_allclose(steps.mean(1), mean, atol=1e-6)
    np.testing.assert_allclose(features(dtype="float16"), mean, atol=2e-3)


def test_an_interrupted_run_goes_on(
    model: MaskedModel, named: dict[str, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    real = dense.write_features

    def dies_at_the_third(path: Path, *more: object) -> None:
        if len(written) == 2:
            raise KeyError("power cut")
        real(path, *more)
        written.append(path)

    for out in (tmp_path / "out", tmp_path / "all.safetensors"):
        written.clear()
        with monkeypatch.context() as patch:
            patch.setattr(dense, "write_features", dies_at_the_third)
            with pytest.raises(KeyError, match="power cut"):
                extract_windows(model, named, out)
        with pytest.raises(ValueError, match=r"other settings \(stride 4, not 2\): delete it, or change --out"):
            extract_windows(model, named, out, Windows(stride=2))
        times = {path: path.stat().st_mtime_ns for path in written}
        with monkeypatch.context() as patch:
            patch.setattr(dense, "write_features", lambda path, *more: (real(path, *more), written.append(path)))
            extract_windows(model, named, out)
        assert len(written) == 6
        assert all(path.stat().st_mtime_ns == time for path, time in times.items() if path.exists())
    assert len(list((tmp_path / "out").glob("*.npy"))) == 6
    assert set(load_file(tmp_path / "all.safetensors")["video"]) == set(range(6))
    with torch.no_grad():
        model.encoder.norm.weight.mul_(2)
    with pytest.raises(ValueError, match=r"other settings \(model \w+, not \w+\)"):
        extract_windows(model, named, tmp_path / "out")


def test_names(tmp_path: Path) -> None:
    records = [Record(f"/data/{name}") for name in ("a/x.mp4", "b/x.mp4", "b/y.mp4", "b/y.mp4")]
    assert list(name_videos(records)) == ["a/x", "b/x", "b/y-0", "b/y-1"]
    assert list(name_videos(records[1:3])) == ["x", "y"]
    assert list(name_videos([Record("/features.mp4")])) == ["features-0"]
    with pytest.raises(ValueError, match="3 videos have only 2 names"):
        name_videos([Record(f"/a/{name}.mp4") for name in ("y", "y", "y-1")])


def test_files_of_other_videos_are_not_taken_for_finished(model: MaskedModel, videos: Path, tmp_path: Path) -> None:
    first, second = (videos.parent / f"{name}.mp4" for name in "01")
    for folder, source in (("a", first), ("b", second)):
        (tmp_path / folder).mkdir()
        shutil.copy(source, tmp_path / folder / "x.mp4")
    a, b = (str(tmp_path / folder / "x.mp4") for folder in "ab")
    out = tmp_path / "features.v1"  # a directory, in spite of its name
    out.mkdir()
    extract_windows(model, name_videos([Record(a, start=0.0, end=0.5)]), out)
    with pytest.raises(ValueError, match=r"features of .*a/x.mp4, not of .*b/x.mp4: change --out"):
        extract_windows(model, name_videos([Record(b)]), out)
    with pytest.raises(ValueError, match=r"a/x.mp4, of another segment, not of"):
        extract_windows(model, name_videos([Record(a, start=0.5, end=1.0)]), out)
    shutil.move(a, tmp_path / "x.mp4")  # what is gone has been moved
    assert extract_windows(model, name_videos([Record(str(tmp_path / "x.mp4"), start=0.0, end=0.5)]), out) == []


def test_command_line(model: MaskedModel, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pretrained(model, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    video = str(videos.parent / "0.mp4")

    def run(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["features", "model", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            return 2, str(result.exception)
        return result.exit_code, result.output

    code, output = run("broken.mp4", video, "--window", 8, "--stride", 4, "--frame-stride", 1, "--out", "f.npy")
    assert (code, "cannot hold 2 videos" in output) == (2, True)
    code, output = run("broken.mp4", video, "--window", 8, "--stride", 4, "--frame-stride", 1, "--out", "out")
    assert (code, "broken.mp4: Invalid data" in output) == (1, True)
    wide = load_encoder(tmp_path / "model", num_frames=8)  # a window of another length stretches the positions
    with torch.no_grad():
        expected = wide(load_clip(video, wide, stride=1, start=4 / 24)).mean(1)
    np.testing.assert_allclose(np.load("out/0.npy")[1:2], expected.numpy(), atol=1e-5)
    assert run("broken.mp4", "--window", 4, "--out", "other")[0] == 2
    for shard in ("0/2", "1/2"):
        assert run(videos, "--window", 4, "--shard", shard, "--out", "shards")[0] == 0
    assert list(json.loads(Path("shards/features.json").read_text())["database"]) == [str(i) for i in range(6)]
    for arguments, message in [
        ((video, "--window", 3, "--out", "x"), "num_frames 3 is not divisible by tubelet_size 2"),
        ((video, "--window", 4, "--layers", "1,3", "--out", "x"), "layer 3 does not exist: the encoder has the blocks"),
        ((video, "--window", 4, "--layers", "one", "--out", "x"), "--layers takes whole numbers and commas"),
        ((video, "--window", 4, "--stride", 0, "--out", "x"), "stride must be at least 1, got 0"),
        ((video, "--window", 4, "--pool", "max", "--out", "x"), "pool must be mean, spatial, tokens, got 'max'"),
        ((video, "--window", 4, "--out", "x.csv"), "the ending must be .npy, .safetensors, .arrow, or none"),
        ((video, "--window", 4, "--format", "csv", "--out", "x"), "format must be npy, safetensors, arrow, got 'csv'"),
        ((video, "--stride", 4, "--out", "x.safetensors"), "--stride is for windows: give --window, too"),
        ((videos, "--pool", "tokens", "--out", "x.safetensors"), "--pool is for windows: give --window, too"),
        ((video, video, "--out", "x.safetensors"), "need one list of videos, got 2"),
    ]:
        code, output = run(*arguments)
        assert (code, message in output) == (2, True), output
    assert not Path("x").exists()


def test_layers_of_different_kinds_are_refused(named: dict[str, Record], tmp_path: Path) -> None:
    model = MaskedModel(FactorisedViViT(**SIZES, temporal_depth=1), preprocess=Preprocess(stride=2)).eval()
    with pytest.raises(ValueError, match="layers of FactorisedViViT are of different kinds: only the last"):
        extract_windows(model, named, tmp_path / "out", Windows(layers=[1]))
    assert extract_windows(model, {"0": named["0"]}, tmp_path / "out") == []
