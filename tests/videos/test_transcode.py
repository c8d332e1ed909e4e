import csv
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from small_videos import video_frame, write_video
from tubelet.cli import app
from tubelet.data.reader import read_frames
from tubelet.videos import transcode as transcode_module
from tubelet.videos.encode import Settings, scaled_size, thin
from tubelet.videos.transcode import transcode


def rows(file):
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


def contents(directory):
    return {path.name: path.read_bytes() for path in Path(directory).rglob("*") if path.is_file()}


@pytest.fixture
def raw(videos, tmp_path):
    """raw/a/0.mp4 48 x 64, raw/a/5.avi 80 x 64 with 5 frames, a text, and a manifest elsewhere."""
    directory = tmp_path / "raw"
    (directory / "a").mkdir(parents=True)
    shutil.copy(videos.parent / "0.mp4", directory / "a" / "0.mp4")
    write_video(directory / "a" / "5.avi", [video_frame(5, n) for n in range(5)])
    (directory / "b.mp4").write_text("not a video")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.csv").write_text("path,label\n../raw/a/5.avi,1\n../raw/b.mp4,0\n../raw/a/0.mp4,0\n")
    (tmp_path / "lists" / "labels.txt").write_text("zero\none\n")
    return directory


def test_new_files_and_their_manifest(raw, tmp_path, capsys):
    before = contents(raw)
    out = tmp_path / "small"
    assert transcode(tmp_path / "lists" / "train.csv", out, Settings(short_side=32, gop=4, fps=6.0), workers=2) == 1
    assert contents(raw) == before
    new = rows(out / "train.csv")
    assert [row["path"] for row in new] == ["a/5.mp4", "b.mp4", "a/0.mp4"]
    assert [row["label"] for row in new] == ["1", "0", "0"]
    assert [row["num_frames"] for row in new] == ["2", "", "10"]  # 24 fps to 6: frames 0 and 4; 0, 4 .. 36
    assert [(row["height"], row["width"]) for row in new] == [("40", "32"), ("", ""), ("32", "42")]
    assert [row["fps"] for row in new] == ["6", "", "6"]
    assert [row["status"] for row in new] == ["ok", "Invalid data found when processing input", "ok"]
    assert (out / "labels.txt").read_text() == "zero\none\n"
    frames = read_frames(out / "a" / "0.mp4", range(10), "pyav")
    expected = torch.tensor([20.0 + 5 * 4 * i for i in range(10)])
    assert (frames[:, 4:16, 4:12].float().mean((1, 2, 3)) - expected).abs().max() <= 3
    with av.open(str(out / "a" / "0.mp4")) as container:
        keys = [i for i, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert keys == [0, 4, 8]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{raw / 'b.mp4'}: Invalid data found when processing input"
    assert printed[1].startswith(f"{out / 'train.csv'}: 2 of 3 videos, 0.0 MB before")
    assert "ms before" in printed[2]


def test_only_what_is_missing_is_made(raw, tmp_path, monkeypatch):
    manifest, out, settings = tmp_path / "lists" / "train.csv", tmp_path / "small", Settings(short_side=32)
    transcode(manifest, out, settings, workers=1)
    first, made = contents(out), []
    encode_all = transcode_module._encode_all
    monkeypatch.setattr(
        transcode_module,
        "_encode_all",
        lambda jobs, *rest: made.extend(job.source for job in jobs) or encode_all(jobs, *rest),
    )
    (out / "a" / "5.mp4").unlink()
    transcode(manifest, out, settings, workers=1)
    assert made == [str(raw / "a" / "5.avi"), str(raw / "b.mp4")]
    assert {**contents(out), ".train.journal": b""} == {**first, ".train.journal": b""}
    made.clear()
    shutil.copy(raw / "a" / "0.mp4", raw / "b.mp4")  # repaired
    assert transcode(manifest, out, settings, workers=1) == 0
    assert made == [str(raw / "b.mp4")]


def test_an_interrupted_file_never_appears(raw, tmp_path, monkeypatch):
    manifest, out = tmp_path / "lists" / "train.csv", tmp_path / "small"
    with monkeypatch.context() as patch:
        patch.setattr(transcode_module.os, "replace", lambda *names: 1 / 0)
        (out).mkdir()
        with pytest.raises(ZeroDivisionError):
            transcode(manifest, out, Settings(), workers=1)
    assert not list(out.rglob("*.mp4"))
    assert transcode(manifest, out, Settings(), workers=1) == 1
    assert len(list(out.rglob("*.mp4"))) == 2
    assert not list(out.rglob("*.partial"))


def test_shards_merge(raw, tmp_path):
    out = tmp_path / "small"
    for shard in ("0/2", "1/2"):
        command = ["transcode", str(tmp_path / "lists" / "train.csv"), str(out), "--shard", shard, "--workers", "1"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == int(shard == "1/2"), result.output  # that with the bad file
    parts = [str(out / f"train.{i}-of-2.csv") for i in range(2)]
    assert CliRunner().invoke(app, ["merge", *parts, "--out", str(out / "train.csv")]).exit_code == 0
    assert [row["path"] for row in rows(out / "train.csv")] == ["a/5.mp4", "b.mp4", "a/0.mp4"]
    whole = tmp_path / "whole"
    transcode(tmp_path / "lists" / "train.csv", whole, Settings(), workers=1)
    assert rows(whole / "train.csv") == rows(out / "train.csv")
    assert (whole / "a" / "0.mp4").read_bytes() == (out / "a" / "0.mp4").read_bytes()


def test_nothing_of_others_is_touched(raw, tmp_path):
    manifest = tmp_path / "lists" / "train.csv"
    for directory in (raw, raw / "a", tmp_path):
        with pytest.raises(ValueError, match="holds originals"):
            transcode(manifest, directory, Settings())
    (tmp_path / "link").symlink_to(raw)
    with pytest.raises(ValueError, match="holds originals"):
        transcode(manifest, tmp_path / "link", Settings())
    (tmp_path / "mine" / "a").mkdir(parents=True)
    (tmp_path / "mine" / "a" / "0.mp4").write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"0.mp4 exists and was not made from"):
        transcode(manifest, tmp_path / "mine", Settings())
    assert (tmp_path / "mine" / "a" / "0.mp4").read_bytes() == b"precious"
    transcode(manifest, tmp_path / "small", Settings(gop=8), workers=1)
    with pytest.raises(ValueError, match=r'"gop": 8.*"gop": 16'):
        transcode(manifest, tmp_path / "small", Settings())
    for wrong in ({"short_side": 33}, {"gop": 0}, {"fps": 0.0}):
        with pytest.raises(ValueError, match="must be"):
            Settings(**wrong)


def test_two_extensions_of_one_name(raw):
    names = transcode_module._new_names(["/x/a.avi", "/x/a.webm", "/x/b/c.avi"], raw.parent / "new")
    assert names == {"/x/a.avi": "a.avi.mp4", "/x/a.webm": "a.webm.mp4", "/x/b/c.avi": "b/c.mp4"}


def test_every_original_has_a_file_of_its_own(raw):
    """Also where the new name of one is the old name of another, and where a name has no room for more."""
    long = [
        "/x/" + "視" * 82 + ".mp4",
        "/x/" + "視" * 84 + ".avi",
        "/x/" + "視" * 84 + "a.y",
        "/x/" + "é" * 124 + ".webm",
    ]
    paths = ["/x/a.avi", "/x/a.webm", "/x/a.avi.mp4", "/x/b.mp4", *long]
    names = transcode_module._new_names(paths, raw.parent / "new")
    assert len(set(names.values())) == len(paths)
    assert names["/x/b.mp4"] == "b.mp4"
    assert all(len(name.encode()) <= 255 and name.endswith(".mp4") for name in names.values())
    assert names == transcode_module._new_names(paths, raw.parent / "new")


def test_a_long_name_does_not_end_the_job(raw, tmp_path):
    long = raw / ("視" * 82 + ".mp4")
    shutil.copy(raw / "a" / "0.mp4", long)
    (tmp_path / "l.csv").write_text(f"path\n{long}\n{raw / 'a' / '0.mp4'}\n", encoding="utf-8")
    assert transcode(tmp_path / "l.csv", tmp_path / "small", Settings(), workers=1) == 0
    assert len(list((tmp_path / "small").rglob("*.mp4"))) == 2


def test_thinning_by_hand():
    def at(times, fps):
        return list(thin([(time, number) for number, time in enumerate(times)], fps))

    assert at([n / 30 for n in range(13)], 7.5) == [0, 4, 8, 12]
    assert at([round(n / 30, 3) for n in range(13)], 15) == [0, 2, 4, 6, 8, 10, 12]  # a container of milliseconds
    assert at([5 + n / 30 for n in range(9)], 10) == [0, 3, 6]
    assert at([0, 0.1, 0.2, 0.9, 1.0], 5) == [0, 2, 2, 2, 2, 4]  # a variable rate: frame 2 is on show until 0.9
    assert at([0.0], 10) == [0]
    assert at([], 10) == []


def test_sizes():
    assert scaled_size(480, 640, 256) == (256, 342)
    assert scaled_size(1920, 1080, 256) == (456, 256)
    assert scaled_size(75, 101, 256) == (76, 100)  # not scaled up, but even
    assert scaled_size(1, 500, 256) == (2, 500)


def test_a_directory_of_images(tmp_path):
    from PIL import Image

    (tmp_path / "raw" / "x").mkdir(parents=True)
    for number in range(12):
        image = Image.fromarray(np.full((40, 60, 3), 20 * number, np.uint8))
        image.save(tmp_path / "raw" / "x" / f"{number}.png")
    (tmp_path / "l.csv").write_text("path,fps\nraw/x,12\n")
    assert transcode(tmp_path / "l.csv", tmp_path / "small", Settings(fps=6.0), workers=1) == 0
    (row,) = rows(tmp_path / "small" / "l.csv")
    assert (row["path"], row["num_frames"], row["fps"]) == ("x.mp4", "6", "6")
    frames = read_frames(tmp_path / "small" / "x.mp4", [1, 5])
    assert frames.float().mean((1, 2, 3)).tolist() == pytest.approx([40, 200], abs=3)
