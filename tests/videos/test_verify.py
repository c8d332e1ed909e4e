import csv
import os
import shutil
import subprocess
import sys

import av
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from small_videos import video_frame, write_video
from tubelet.cli import app
from tubelet.data.manifest import Manifest
from tubelet.data.reader import available_readers, read_frames
from tubelet.videos import verify as verify_module
from tubelet.videos.processes import Killed
from tubelet.videos.shards import merge, take_shard
from tubelet.videos.verify import Finding, Job, examine, examine_all, verify


def write_images(directory, frames):
    directory.mkdir()
    for number, image in enumerate(frames):
        Image.fromarray(image).save(directory / f"img_{number + 1}.png")  # not padded: 10 must come after 9


@pytest.fixture
def mixed(videos, tmp_path):
    """A manifest of good and bad videos, in a directory of its own, with two classes."""
    shutil.copy(videos.parent / "0.mp4", tmp_path / "good.mp4")
    shutil.copy(videos.parent / "5.mp4", tmp_path / "short.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").touch()
    write_images(tmp_path / "images", [video_frame(0, n) for n in range(12)])
    (tmp_path / "folder").mkdir()
    names = ["good.mp4", "text.mp4", "short.mp4", "none.mp4", "images", "empty.mp4", "folder"]
    lines = ["path,label", *(f"{name},{i % 2}" for i, name in enumerate(names))]
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "labels.txt").write_text("zero\none\n")
    return tmp_path / "all.csv"


def rows(file):
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_columns_are_filled(mixed, tmp_path, capsys):
    out = tmp_path / "out" / "verified.csv"
    assert verify(mixed, out, workers=2) == 4
    table = {row["path"].removeprefix("../"): row for row in rows(out)}
    assert list(table) == [row["path"] for row in rows(mixed)]
    best = available_readers()[0]
    expected = {"label": "0", "num_frames": "40", "fps": "24", "height": "48", "width": "64"}
    assert table["good.mp4"] == {"path": "../good.mp4", **expected, "status": "ok", "reader": best}
    assert (table["short.mp4"]["num_frames"], table["short.mp4"]["height"]) == ("5", "80")
    assert table["images"] | {"path": ""} == {
        "path": "",
        **{"label": "0", "num_frames": "12", "fps": "", "height": "48", "width": "64", "status": "ok", "reader": ""},
    }
    for name, reason in {
        "text.mp4": "Invalid data found when processing input",
        "none.mp4": "no such file",
        "empty.mp4": "is empty",
        "folder": "is a directory without numbered images",
    }.items():
        assert (table[name]["status"], table[name]["num_frames"], table[name]["path"]) == (reason, "", f"../{name}")
    printed = capsys.readouterr().out.splitlines()
    problems = [f"{tmp_path / name}: {table[name]['status']}" for name in table if table[name]["status"] != "ok"]
    assert sorted(printed[:-1]) == sorted(problems)
    assert f"3 of 7 videos are usable ({best} 2, images 1), 4 are not" in printed[-1]
    assert (out.parent / "labels.txt").read_text() == "zero\none\n"
    assert sorted(path.name for path in out.parent.iterdir()) == ["labels.txt", "verified.csv"]
    assert Manifest.read(out).record(0).path == str(tmp_path / "out" / ".." / "good.mp4")


def test_command_line(mixed, tmp_path):
    result = CliRunner().invoke(app, ["verify", str(mixed), "--out", str(tmp_path / "v.csv"), "--workers", "1"])
    assert result.exit_code == 1, result.output
    good = tmp_path / "good.csv"
    good.write_text("path\ngood.mp4\n")
    result = CliRunner().invoke(app, ["verify", str(good), "--out", str(tmp_path / "g.csv")])
    assert result.exit_code == 0, result.output
    command = [sys.executable, "-m", "tubelet.cli", "verify", str(good), "--out", "x.csv", "--shard", "3/3"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "src"})
    assert (done.returncode, done.stderr) == (2, "error: a shard is i/n with i from 0 to n - 1, got '3/3'\n")


def test_goes_on_after_an_interruption(mixed, tmp_path, monkeypatch):
    out, seen = tmp_path / "v.csv", []

    def interrupted(jobs, workers, limit):
        for count, (path, finding) in enumerate(examine_all(jobs, workers, limit)):
            if count == 3:
                raise KeyboardInterrupt
            seen.append(path)
            yield path, finding

    with monkeypatch.context() as patch:
        patch.setattr(verify_module, "examine_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            verify(mixed, out, workers=1)
    assert not out.exists()
    partial = tmp_path / "v.csv.partial"
    assert len(partial.read_text().splitlines()) == 3
    partial.write_text(partial.read_text() + '["/half a li')  # killed while writing
    again = []
    monkeypatch.setattr(
        verify_module, "examine_all", lambda jobs, *rest: again.extend(jobs) or examine_all(jobs, *rest)
    )
    assert verify(mixed, out, workers=1) == 4
    assert len(again) == 4
    assert not {job.path for job in again} & set(seen)
    assert not partial.exists()
    other = tmp_path / "other.csv"
    verify(mixed, other, workers=2)
    assert rows(out) == rows(other)


def test_a_changed_file_is_examined_again(videos, tmp_path):
    shutil.copy(videos.parent / "0.mp4", tmp_path / "a.mp4")
    path, out = str(tmp_path / "a.mp4"), tmp_path / "v.csv"
    journal = verify_module.Journal(tmp_path / "v.csv.partial")
    journal.add(path, {"status": "made up"})
    assert verify_module.Journal(journal.file).get(path) == {"status": "made up"}
    shutil.copy(videos.parent / "5.mp4", path)
    (tmp_path / "a.csv").write_text("path\na.mp4\n")
    assert verify(tmp_path / "a.csv", out, workers=1) == 0
    assert rows(out)[0]["num_frames"] == "5"


def test_a_reader_that_is_killed_gives_way_to_the_next(monkeypatch):
    rounds = []

    def run_jobs(work, jobs, workers, limit):
        rounds.append(list(jobs))
        for job in jobs:
            if job.path == "dead.mp4":
                yield job, Killed("", "keeps its decoder busy for more than 1 seconds")
            elif len(job.skip) < 2:
                yield job, Killed(["pyav_seek", "decord"][len(job.skip)], "crashes its decoder (SIGSEGV)")
            else:
                yield job, Finding("ok", 3, reader="pyav")

    monkeypatch.setattr(verify_module, "run_jobs", run_jobs)
    found = dict(examine_all([Job("dead.mp4"), Job("odd.mp4")], 1, 1.0))
    assert found["dead.mp4"].status == "keeps its decoder busy for more than 1 seconds"
    assert found["odd.mp4"].reader == "pyav"
    assert [job.skip for jobs in rounds[1:] for job in jobs] == [("pyav_seek",), ("pyav_seek", "decord")]


def test_the_reader_is_the_first_that_agrees(videos):
    path = str(videos.parent / "0.mp4")
    assert examine(Job(path), print).reader == available_readers()[0]
    assert examine(Job(path, skip=("pyav_seek",)), print).reader == available_readers()[1]
    assert examine(Job(path, skip=("pyav_seek", "decord", "torchcodec")), print).reader == "pyav"


def test_a_reader_with_other_frames_is_refused(videos):
    path = str(videos.parent / "0.mp4")
    finding, sample, right = verify_module._decode(path, lambda: None)
    assert right == ("pyav_seek", "decord", "torchcodec", "pyav")
    assert finding == Finding("ok", 40, 24.0, 48, 64)
    assert len(sample) in (8, 9)
    assert 39 in sample
    assert verify_module._agrees(path, "pyav", sample, print)
    shifted = {number + 1 if number < 39 else 38: frame for number, frame in sample.items()}
    assert not verify_module._agrees(path, "pyav", shifted, print)  # neighbouring frames differ by 5
    image = sample[39]
    assert verify_module._same(image, image)
    assert not verify_module._same(image, image ^ 1)  # 1 everywhere: a slow fade
    image = image.copy()
    image[0, 0, 0] ^= 8  # or much in one place: a small object
    assert not verify_module._same(image, sample[39])


@pytest.mark.parametrize(
    ("extension", "codec", "options"),
    [
        ("avi", "libx264", {"g": "12", "bf": "2"}),  # packets without a time of showing
        ("mpg", "mpeg1video", {"g": "12", "bf": "2"}),
        ("webm", "libvpx", {"g": "12"}),
        ("mp4", "libx264", {"g": "12", "bf": "2", "x264-params": "open-gop=1"}),
        ("mkv", "libx264", {"g": "12", "x264-params": "intra-refresh=1"}),  # key frames that are not whole pictures
    ],
)
def test_the_reader_named_is_right_on_every_frame(tmp_path, extension, codec, options):
    file = str(tmp_path / f"a.{extension}")
    with av.open(file, "w") as container:
        stream = container.add_stream(codec, rate=24, options=options)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 96, 128, "yuv420p", 1_000_000
        texture = np.random.default_rng(0).integers(0, 80, (96, 128, 3), dtype=np.uint8)
        for number in range(40):
            image = texture.copy()
            image[:, 3 * number : 3 * number + 8] = 230
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    finding = examine(Job(file), print)
    assert (finding.status, finding.num_frames) == ("ok", 40)
    expected = read_frames(file, range(40), "pyav")
    for number in (39, 0, 13, 25, 11, 38, 24):
        assert torch.equal(read_frames(file, [number], finding.reader)[0], expected[number])


def test_a_video_that_breaks_off(tmp_path, capsys):
    file = tmp_path / "cut.mkv"
    write_video(file, [video_frame(1, n) for n in range(40)])
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "a.csv").write_text("path\ncut.mkv\n")
    assert verify(tmp_path / "a.csv", tmp_path / "v.csv", workers=1) == 0
    (row,) = rows(tmp_path / "v.csv")
    with av.open(str(file)) as container:
        assert 0 < int(row["num_frames"]) == sum(1 for _ in container.decode(video=0)) < 40


def test_images_of_two_sizes(tmp_path):
    write_images(tmp_path / "two", [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 6, 3), np.uint8)])
    assert "differ in size: [(8, 6), (8, 8)]" in examine(Job(str(tmp_path / "two")), print).status


def test_shards_merge_to_the_whole(mixed, tmp_path):
    whole = Manifest.read(mixed)
    assert [len(take_shard(whole, f"{i}/3")) for i in range(3)] == [2, 2, 3]
    for i in range(3):
        verify(mixed, tmp_path / "parts" / f"{i}.csv", workers=1, shard=f"{i}/3")
    verify(mixed, tmp_path / "whole.csv", workers=1)
    parts = [tmp_path / "parts" / f"{i}.csv" for i in range(3)]
    merged = tmp_path / "merged.csv"
    assert CliRunner().invoke(app, ["merge", *map(str, parts), "--out", str(merged)]).exit_code == 0
    assert rows(merged) == rows(tmp_path / "whole.csv")
    merge([merged, parts[1], merged, mixed], merged)  # idempotent
    assert rows(merged) == rows(tmp_path / "whole.csv")
    for shard in ("0", "1/0", "2/2", "-1/2"):
        with pytest.raises(ValueError, match="a shard is i/n"):
            take_shard(whole, shard)
    with pytest.raises(ValueError, match="shard 0/9 of a manifest with 7 lines is empty"):
        take_shard(whole, "0/9")


def test_contradicting_manifests_are_not_merged(tmp_path):
    (tmp_path / "a.csv").write_text("path,label\nx.mp4,1\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.csv").write_text("path,label\n../x.mp4,2\n")
    with pytest.raises(ValueError, match=r"x.mp4: one manifest gives label 1, another 2"):
        merge([tmp_path / "a.csv", tmp_path / "sub" / "b.csv"], tmp_path / "out.csv")
    (tmp_path / "sub" / "b.csv").write_text("path,label,num_frames\n../x.mp4,,7\n")
    merge([tmp_path / "a.csv", tmp_path / "sub" / "b.csv"], tmp_path / "out.csv")
    assert rows(tmp_path / "out.csv") == [{"path": "x.mp4", "label": "1", "num_frames": "7"}]
    (tmp_path / "labels.txt").write_text("a\nb\n")
    (tmp_path / "sub" / "labels.txt").write_text("b\na\n")
    with pytest.raises(ValueError, match="name different classes"):
        merge([tmp_path / "a.csv", tmp_path / "sub" / "b.csv"], tmp_path / "out.csv")
