import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tubelet.data.manifest import Manifest, Record


def read(tmp_path, text, name="list.csv"):
    (tmp_path / name).write_text(text)
    return Manifest.read(tmp_path / name)


def test_own_format(tmp_path):
    manifest = read(tmp_path, 'path,label,fps\n"a, b.mp4",3,29.97\n/videos/c.mp4,,\nd.mp4,-1,\n')
    assert len(manifest) == 3
    assert manifest.record(0) == Record(str(tmp_path / "a, b.mp4"), label=3, fps=29.97)
    assert manifest.record(1) == Record("/videos/c.mp4")
    assert manifest.record(2).label is None


def test_headerless_list(tmp_path):
    manifest = read(tmp_path, "videos/my dance.mp4 7\n/b.mp4\t-1\r\nc.mp4  0", "list.txt")
    assert manifest.record(0) == Record(str(tmp_path / "videos/my dance.mp4"), label=7)
    assert manifest.record(1) == Record("/b.mp4")
    assert manifest.record(2) == Record(str(tmp_path / "c.mp4"), label=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.mp4,1\nb.mp4,cat\n", r"list.csv, line 3: label must be int64, got 'cat'"),
        ("path,label\na.mp4,1\n\nb.mp4,1,2\n", r"list.csv, line 4: 3 cells under a header of 2"),
        ("path,label\n,1\n", r"list.csv, line 2: the path is empty"),
        ("path,label\na.mp4,-2\n", r"list.csv, line 2: label must not be negative, got -2"),
        ("path,lable\na.mp4,1\n", r"list.csv: unknown columns \['lable'\]"),
        ("path,label\n", r"list.csv: lists no video"),
        ("", r"list.csv: lists no video"),
        ("a.mp4 1\nb.mp4\n", r"list.csv, line 2: expected `path label`.*got 'b.mp4'"),
        ("file,label\na.mp4,1\n", r"list.csv, line 1: expected `path label`.*`path` column"),
        ("a.mp4 1\nb.mp4 99999999999999999999\n", r"list.csv, line 2"),
    ],
)
def test_errors_name_file_and_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


LISTS = {
    "quotes": '"a b.mp4" 0\n"c.mp4" 1\n',
    "commas": "a b.mp4,0\nc.mp4,1\n",
    "a comma and a blank": "a b.mp4, 0\nc.mp4, 1\n",
    "quotes and commas": '"a b.mp4",0\n"c.mp4",1\n',
    "tabs": "a b.mp4\t0\nc.mp4\t1\n",
    "frames": "a b.mp4 40 0\nc.mp4 12 1\n",
    "empty lines": "a b.mp4 0\n\nc.mp4 1\n\n\n",
    "blanks in the header": "path, label\na b.mp4, 0\nc.mp4, 1\n",
    "capitals in the header": "Path,LABEL\na b.mp4,0\nc.mp4,1\n",
    "a header with tabs": "path\tlabel\na b.mp4\t0\nc.mp4\t1\n",
    "a header with semicolons": "label;path\r\n0;a b.mp4\r\n1;c.mp4\r\n",
    "labels of pandas": "path,label\na b.mp4,0.0\nc.mp4,1.0\n",
    "a byte order mark": "\ufeffpath,label\na b.mp4,0\nc.mp4,1\n",
}


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS)
def test_lists_as_others_write_them(tmp_path, text):
    manifest = read(tmp_path, text)
    assert [manifest.record(i) for i in range(len(manifest))] == [
        Record(str(tmp_path / "a b.mp4"), 0),
        Record(str(tmp_path / "c.mp4"), 1),
    ]


def test_a_number_in_a_path_stays_there_if_there_is_such_a_file(tmp_path):
    (tmp_path / "take 12").touch()
    manifest = read(tmp_path, "take 12 0\ntake 13 1\n")
    assert Path(manifest.record(1).path).name == "take 13"


@pytest.mark.parametrize("text", ["path,label\na.mp4,run\nb.mp4,jump up\n", "a.mp4 run\nb.mp4,jump up\n"])
def test_class_names_as_labels(tmp_path, text):
    (tmp_path / "labels.txt").write_text("jump up\nrun\n")
    manifest = read(tmp_path, text)
    assert [manifest.record(i).label for i in range(2)] == [1, 0]
    (tmp_path / "labels.txt").write_text("jump\nwalk\n")
    with pytest.raises(ValueError, match=r"line [12]: .*'(a.mp4 )?run'"):
        read(tmp_path, text)


def test_class_names_without_their_list_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"line 2: label must be int64, got 'run': number the classes .* labels.txt"):
        read(tmp_path, "path,label\na.mp4,run\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\na.mp4,0\n\xe9.mp4,0\n", r"line 3: is not UTF-8 \(byte 0xe9\): .* iconv -f latin1"),
        ("path,label\na.mp4,0\n".encode("utf-16"), r"is UTF-16, save it as UTF-8"),
        (b"\x00\x00\x00\x20ftypisom", r"is no list of videos but a binary file, perhaps a video itself"),
        (b"path,label\na.mp4,0\nb.mp4,999999999\n", r"line 3: label 999999999 is no class number"),
        (b"a.mp4 0\nb.mp4 999999999\n", r"line 2: label 999999999 is no class number"),
        (b"path,start,end\na.mp4,2,1\n", r"line 2: end must lie behind start, got 2 to 1 seconds"),
        (b"path,start\na.mp4,-2\n", r"line 2: start must not be negative, got -2"),
    ],
)
def test_what_cannot_be_meant_names_the_line_and_the_remedy(tmp_path, content, message):
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Manifest.read(tmp_path / "list.csv")


def test_home_directories(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    read(tmp_path, "path\n~/videos/a.mp4\n")
    manifest = Manifest.read("~/list.csv")
    assert manifest.record(0) == Record(str(tmp_path / "videos" / "a.mp4"))
    (tmp_path / "out").mkdir()
    manifest.write(tmp_path / "out" / "moved.csv")
    assert Manifest.read(tmp_path / "out" / "moved.csv").record(0) == manifest.record(0)


def test_missing_manifest(tmp_path):
    with pytest.raises(ValueError, match=r"none.csv: no such manifest"):
        Manifest.read(tmp_path / "none.csv")


def test_written_elsewhere_paths_mean_the_same_files(tmp_path):
    manifest = read(tmp_path, "path,label,num_frames\na.mp4,1,30\n/b.mp4,,\n")
    (tmp_path / "out").mkdir()
    for target in (tmp_path / "again.csv", tmp_path / "out" / "moved.csv"):
        manifest.write(target)
        again = Manifest.read(target)
        records = [again.record(i) for i in range(2)]
        assert records[0].label == 1
        assert records[0].num_frames == 30
        assert (tmp_path / "out" / records[0].path).resolve() == tmp_path / "a.mp4"
        assert records[1] == Record("/b.mp4")
    assert "status" not in target.read_text()
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["moved.csv"]


def test_from_columns(tmp_path):
    assert Manifest.from_columns(tmp_path, {"path": ["a"], "label": [2]}).record(0) == Record(str(tmp_path / "a"), 2)
    with pytest.raises(ValueError, match="unknown manifest columns"):
        Manifest.from_columns(tmp_path, {"file": ["a"]})


def test_class_names(tmp_path):
    manifest = read(tmp_path, "path,label\na.mp4,2\n")
    assert manifest.class_names() is None
    (tmp_path / "labels.txt").write_text("x\ny\nz z\n")
    assert manifest.class_names() == ["x", "y", "z z"]
    (tmp_path / "labels.txt").write_text("x\ny\n")
    with pytest.raises(ValueError, match="names 2 classes, but the manifest beside it has label 2"):
        manifest.class_names()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where copies of large manifests go."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tubelet" / "manifests"


def lines(count, header):
    separator = "," if header else " "
    return header + "".join(f"some/directory/video_{i:07d}.mp4{separator}{i % 400}\n" for i in range(count))


@pytest.mark.parametrize("header", ["path,label\n", ""])
def test_a_large_manifest_is_parsed_once_and_then_mapped(tmp_path, cache, header):
    manifest = read(tmp_path, lines(200_000, header))
    assert manifest.mapped is not None
    (copy,) = cache.iterdir()
    written = copy.stat().st_mtime_ns
    again = Manifest.read(tmp_path / "list.csv")
    assert copy.stat().st_mtime_ns == written
    assert again.record(199_999) == Record(str(tmp_path / "some/directory/video_0199999.mp4"), label=399)
    assert again.num_classes == 400
    sent = pickle.dumps(again)
    assert len(sent) < 1000
    assert pickle.loads(sent).record(123_456) == manifest.record(123_456)
    changed = read(tmp_path, lines(200_001, header))
    assert len(changed) == 200_001
    assert len(list(cache.iterdir())) == 1  # the copy of what the manifest was is gone
    assert len(again) == 200_000
    assert again.record(7) == manifest.record(7)


def test_small_manifests_and_lost_caches_stay_in_memory(tmp_path, cache):
    small = read(tmp_path, "path\na.mp4\n")
    assert small.mapped is None
    assert pickle.loads(pickle.dumps(small)).record(0) == small.record(0)
    assert not cache.exists()
    cache.parent.parent.touch()  # a file where the folder should be
    assert len(read(tmp_path, lines(200_000, ""))) == 200_000


@pytest.mark.slow
@pytest.mark.parametrize("header", ["path,label\n", ""])
def test_a_million_lines_with_eight_workers(tmp_path, cache, header):
    """At most 300 MB in all, also where the manifest is opened for the second time; O(1) Python objects."""
    (tmp_path / "small.csv").write_text(lines(10_000, header))
    (tmp_path / "large.csv").write_text(lines(1_000_000, header))
    script = Path(__file__).with_name("scale.py")

    def cost(name):
        command = [sys.executable, "-W", "ignore", str(script), str(tmp_path / name), "8"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    small, first, second = cost("small.csv"), cost("large.csv"), cost("large.csv")
    assert small["processes"] == first["processes"] == second["processes"] == 9
    assert max(first["bytes"], second["bytes"]) - small["bytes"] < 300 * 10**6
    assert max(first["objects"], second["objects"]) < 100
