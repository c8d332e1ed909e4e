"""Miniature copies of each official layout, made of real small videos, from the raw download to batches."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from small_videos import video_frame, write_video
from tubelet.clip import ClipGrid
from tubelet.data.datamodule import VideoDataModule
from tubelet.data.manifest import Manifest
from tubelet.data.transforms import Preprocess

DATASETS = Path(__file__).parents[2] / "datasets"
GRID = ClipGrid(frames=4, height=32, width=32, tubelet=2, patch=8)


def script(name):
    spec = importlib.util.spec_from_file_location(f"script_{name}", DATASETS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def labels(name):
    return (DATASETS / "labels" / f"{name}.txt").read_text().splitlines()


@pytest.fixture
def put(videos):
    """`put(path)`: a real video of that name; MPEG-4 in AVI and VP8 in webm, as the originals are."""

    def put(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".mp4":
            os.link(videos.parent / "0.mp4", path)
        else:
            codec = {".avi": "mpeg4", ".webm": "libvpx"}[path.suffix]
            write_video(path, [video_frame(0, i) for i in range(8)], codec=codec)

    return put


def listed(out, split):
    """(file name, label) of every line of a manifest."""
    manifest = Manifest.read(out / f"{split}.csv")
    records = [manifest.record(i) for i in range(len(manifest))]
    assert all(Path(record.path).is_file() for record in records)
    return [(Path(record.path).name, record.label) for record in records]


def missing(out):
    with open(out / "missing.csv", newline="") as lines:
        return list(csv.reader(lines))[1:]


def check_batches(out, name, tmp_path, test="test"):
    """Through VideoDataModule; the class names travel beside the manifests."""
    assert (out / "labels.txt").read_text().splitlines() == labels(name)
    data = VideoDataModule(
        train=str(out / "train.csv"), val=str(out / "val.csv"), test=str(out / f"{test}.csv"), batch_size=2,
        num_workers=0, stride=2, num_classes=len(labels(name)), test_clips=2, test_crops=3, grid=GRID,
        preprocess=Preprocess(), run_dir=tmp_path,
    )  # fmt: skip
    data.setup("fit")
    data.setup("test")
    batches = [*data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader()]
    assert all(batch.clip.shape[1:] == (3, 4, 32, 32) for batch in batches)
    assert not list(tmp_path.glob("bad_videos*"))


@pytest.mark.parametrize("split", [1, 2])
def test_ucf101(tmp_path, put, split):
    raw, out = tmp_path / "raw", tmp_path / "out"
    lists = raw / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    names = labels("ucf101")
    (lists / "classInd.txt").write_text("".join(f"{i} {name}\r\n" for i, name in enumerate(names, 1)))
    for n in (1, 2, 3):  # split n tests on group n
        videos = [f"{c}/v_{c}_g0{g}_c01.avi" for c in ("YoYo", "Archery") for g in (1, 2, 3)]
        tests = [v for v in videos if f"_g0{n}_" in v]
        rest = [v for v in videos if v not in tests]
        (lists / f"testlist0{n}.txt").write_text("".join(f"{v}\n" for v in tests))
        (lists / f"trainlist0{n}.txt").write_text("".join(f"{v} {names.index(v.split('/')[0]) + 1}\n" for v in rest))
    for video in videos:
        if video != "Archery/v_Archery_g03_c01.avi":
            put(raw / "UCF-101" / video)
    script("ucf101")(raw, out, split)
    others = [g for g in (1, 2, 3) if g != split]
    train = [(f"v_YoYo_g0{g}_c01.avi", 100) for g in others] + [(f"v_Archery_g0{g}_c01.avi", 2) for g in others]
    assert listed(out, "train") == [video for video in train if video[0] != "v_Archery_g03_c01.avi"]
    assert (
        listed(out, "val")
        == listed(out, "test")
        == [
            (f"v_YoYo_g0{split}_c01.avi", 100),
            (f"v_Archery_g0{split}_c01.avi", 2),
        ]
    )
    assert missing(out) == [["train", "Archery/v_Archery_g03_c01.avi", "2"]]
    check_batches(out, "ucf101", tmp_path)


def test_hmdb51(tmp_path, put):
    raw, out = tmp_path / "raw", tmp_path / "out"
    splits = raw / "testTrainMulti_7030_splits"
    splits.mkdir(parents=True)
    for name in labels("hmdb51"):
        for n in (1, 2, 3):
            (splits / f"{name}_test_split{n}.txt").write_text("")
    odd = "#20_Rhythm_(clap)_u,_nm&np1_fr_goo_0.avi"
    (splits / "clap_test_split2.txt").write_text(f"{odd} 1 \nb.avi 2 \nc.avi 0 \n")
    (splits / "wave_test_split2.txt").write_text("b.avi 1 \nd.avi 2 \ngone.avi 2 \n")  # b.avi of another class
    for video in (f"clap/{odd}", "clap/b.avi", "clap/c.avi", "wave/b.avi", "wave/d.avi"):
        put(raw / "hmdb51_org" / video)
    script("hmdb51")(raw, out, 2)
    clap, wave = labels("hmdb51").index("clap"), labels("hmdb51").index("wave")
    assert listed(out, "train") == [(odd, clap), ("b.avi", wave)]
    assert listed(out, "test") == listed(out, "val") == [("b.avi", clap), ("d.avi", wave)]
    assert Manifest.read(out / "test.csv").record(0).path == str(raw / "hmdb51_org/clap/b.avi")
    assert missing(out) == [[split, "wave/gone.avi", str(wave)] for split in ("val", "test")]
    check_batches(out, "hmdb51", tmp_path)


@pytest.mark.parametrize("answers", [True, False])
def test_ssv2(tmp_path, put, answers):
    raw, out = tmp_path / "raw", tmp_path / "out"
    (raw / "labels").mkdir(parents=True)
    names = labels("ssv2")

    def write(name, content):
        (raw / "labels" / f"{name}.json").write_text(json.dumps(content))

    write("labels", {name: str(i) for i, name in sorted(enumerate(names), key=lambda pair: pair[1][::-1])})
    template = "Holding [something] next to [something]"
    plain = "Holding something next to something"
    entry = {"label": "holding potato next to bottle", "template": template, "placeholders": ["potato", "bottle"]}
    write("train", [{"id": "78687", **entry}, {"id": "42326", **entry, "template": "Folding [something]"}])
    write("validation", [{"id": "74225", **entry}, {"id": "116154", **entry}])
    write("test", [{"id": "1420"}])
    for number in ("78687", "42326", "74225", *(["1420"] if answers else [])):
        put(raw / "20bn-something-something-v2" / f"{number}.webm")
    if answers:
        (raw / "labels" / "test-answers.csv").write_text(f"1420;{plain}\n")
    script("ssv2")(raw, out)
    label = names.index(plain)
    assert listed(out, "train") == [("78687.webm", label), ("42326.webm", names.index("Folding something"))]
    assert listed(out, "val") == [("74225.webm", label)]
    assert missing(out) == [["val", "116154", str(label)]]
    assert (out / "test.csv").exists() == answers
    if answers:
        assert listed(out, "test") == [("1420.webm", label)]
    check_batches(out, "ssv2", tmp_path, test="val")


def test_kinetics(tmp_path, put, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    (raw / "annotations").mkdir(parents=True)
    header = "label,youtube_id,time_start,time_end,split\n"
    (raw / "annotations" / "train.csv").write_text(
        header
        + "zumba,-abcdefghij,7,17,train\n"
        + "abseiling,bbbbbbbbbbb,120,130,train\n"
        + '"riding mule","c_c_c_c_c_c",0,10,train\n'
        + "abseiling,ddddddddddd,1,11,train\n"
    )
    (raw / "annotations" / "kinetics_400_validate.csv").write_text(header + "zumba,eeeeeeeeeee,1,11,validate\n")
    (raw / "annotations" / "test.csv").write_text("youtube_id,time_start,time_end,split\nfffffffffff,1,11,test\n")
    put(raw / "train" / "-abcdefghij_000007_000017.mp4")  # CVDF
    put(raw / "train" / "abseiling" / "bbbbbbbbbbb_000120_000130.mp4")  # class folders
    put(raw / "train" / "c_c_c_c_c_c.mp4")  # plain ids
    put(raw / "val" / "eeeeeeeeeee_000001_000011.mp4")
    put(raw / "replacement" / "replacement_for_corrupted_k400" / "eeeeeeeeeee_000001_000011.mp4")
    with pytest.raises(ValueError, match="the training list has 3 classes: say --classes 400, 600 or 700"):
        script("kinetics")(raw, out)
    script("kinetics")(raw, out, 400)
    numbers = {name: i for i, name in enumerate(labels("kinetics400"))}
    assert listed(out, "train") == [
        ("-abcdefghij_000007_000017.mp4", numbers["zumba"]),
        ("bbbbbbbbbbb_000120_000130.mp4", numbers["abseiling"]),
        ("c_c_c_c_c_c.mp4", numbers["riding mule"]),
    ]
    assert "replacement" in Manifest.read(out / "val.csv").record(0).path
    assert missing(out) == [["train", "ddddddddddd_000001_000011", "0"]]
    assert not (out / "test.csv").exists()
    printed = capsys.readouterr().out
    assert "1 missing videos are listed in" in printed.replace("\n", " ")
    check_batches(out, "kinetics400", tmp_path, test="val")

    put(raw / "test" / "fffffffffff_000001_000011.mp4")
    script("kinetics")(raw, out, 700)
    assert listed(out, "test") == [("fffffffffff_000001_000011.mp4", None)]
    assert listed(out, "train")[0][1] == labels("kinetics700").index("zumba") == 699


def test_folders(tmp_path, put):
    for name in ("dance/a.mp4", "dance/b.mp4", "dance/deeper/c.mp4", "dance/d.mp4", "run/e.mp4", "run/f.mp4"):
        put(tmp_path / "raw" / name)
    (tmp_path / "raw" / "readme.txt").touch()
    script("folder")(tmp_path / "raw", tmp_path / "out", 0.5, 0)
    train, val = listed(tmp_path / "out", "train"), listed(tmp_path / "out", "val")
    assert sorted(train + val) == [(f"{c}.mp4", 0) for c in "abcd"] + [("e.mp4", 1), ("f.mp4", 1)]
    assert [label for _, label in val] == [0, 0, 1]
    assert (tmp_path / "out" / "labels.txt").read_text() == "dance\nrun\n"
    script("folder")(tmp_path / "raw", tmp_path / "again", 0.5, 0)
    assert listed(tmp_path / "again", "val") == val

    (tmp_path / "split").mkdir()
    (tmp_path / "raw").rename(tmp_path / "split" / "train")
    put(tmp_path / "split" / "val" / "run" / "g.mp4")
    script("folder")(tmp_path / "split", tmp_path / "split_out", 0.5, 0)
    assert len(listed(tmp_path / "split_out", "train")) == 6
    assert listed(tmp_path / "split_out", "val") == [("g.mp4", 1)]

    put(tmp_path / "flat" / "a.mp4")
    script("folder")(tmp_path / "flat", tmp_path / "flat_out", 0.1, 0)
    assert listed(tmp_path / "flat_out", "train") == [("a.mp4", None)]
    assert not (tmp_path / "flat_out" / "labels.txt").exists()


def test_folders_pass_over_what_is_no_video_and_say_why(tmp_path, put, capsys):
    raw = tmp_path / "raw"
    put(raw / "run" / "x.mp4")
    for name in ("run/a.mp4", "run/b.mts", "walk/a.mp4", "film/a.GIF"):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes((raw / "run" / "x.mp4").read_bytes())
    (raw / "__MACOSX" / "run").mkdir(parents=True)
    (raw / "__MACOSX" / "run" / "._a.mp4").write_text("x")
    (raw / "run" / "._b.mp4").write_text("x")
    (raw / "run" / "up").symlink_to("..")
    (raw / "also_walk").symlink_to("walk")
    (raw / "walk" / "notes.txt").write_text("x")
    (raw / "empty").mkdir()
    script("folder")(raw, tmp_path / "out", 0.0, 0)
    assert listed(tmp_path / "out", "train") == [("a.GIF", 0), ("a.mp4", 1), ("b.mts", 1), ("x.mp4", 1), ("a.mp4", 2)]
    assert (tmp_path / "out" / "labels.txt").read_text() == "film\nrun\nwalk\n"
    printed = capsys.readouterr().out
    for line in (
        f"passed over: 1 hidden folders and those of archives or systems ({raw / '__MACOSX'})",
        f"passed over: 1 hidden files ({raw / 'run' / '._b.mp4'})",
        f"passed over: 2 folders that are listed already, through a link (such as {raw / 'also_walk'})",
        f"passed over: 1 with another extension than those of videos ({raw / 'walk' / 'notes.txt'})",
        "the extensions: .txt 1",
        f"no video in 2 folders of {raw}, so no classes: also_walk, empty",
    ):
        assert line in printed


def test_folders_of_splits_by_other_names(tmp_path, put, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for name in ("Training/run/a.mp4", "validation/run/b.mp4", "testing/run/c.mp4", "extra/run/d.mp4"):
        put(raw / name)
    script("folder")(raw, out, 0.1, 0)
    assert [listed(out, split) for split in ("train", "val", "test")] == [[(f"{c}.mp4", 0)] for c in "abc"]
    assert "passed over: 1 folders beside Training (such as extra)" in capsys.readouterr().out
    (raw / "testing").rename(raw / "valid")
    with pytest.raises(ValueError, match=r"valid and .*validation: both are val, leave one"):
        script("folder")(raw, out, 0.1, 0)
    (raw / "valid").rename(raw / ".away")
    script("folder")(raw, out, 0.1, 0)
    assert not (out / "test.csv").exists()  # it was of the earlier run
    assert (out / "test.csv.old").exists()
    assert "test.csv is of an earlier run" in capsys.readouterr().out
    only = tmp_path / "only"
    put(only / "val" / "run" / "a.mp4")
    with pytest.raises(ValueError, match="only: holds val, but no train folder"):
        script("folder")(only, out, 0.1, 0)


def test_folders_say_what_makes_figures_meaningless(tmp_path, put, capsys):
    raw = tmp_path / "raw"
    put(raw / "pool" / "a.mp4")
    for split in ("train", "val"):
        (raw / split).mkdir()
        (raw / split / "run").symlink_to(raw / "pool")
    (raw / "train" / "walk").mkdir()
    (raw / "train" / "walk" / "b.mp4").symlink_to(raw / "pool" / "a.mp4")
    script("folder")(raw, tmp_path / "out", 0.1, 0)
    printed = capsys.readouterr().out
    assert "warning: 1 files are listed under two labels" in printed
    assert "warning: 1 files are in train and in val" in printed
    put(tmp_path / "few" / "run" / "a.mp4")
    put(tmp_path / "few" / "run" / "b.mp4")
    script("folder")(tmp_path / "few", tmp_path / "few_out", 0.1, 0)
    assert "too few videos for a share of 0.1 in val, all are in train: run" in capsys.readouterr().out


def frames(folder):
    folder.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(video_frame(0, number)).save(folder / f"img_{number:05d}.jpg")


def test_folders_of_frames(tmp_path, capsys):
    raw = tmp_path / "raw"
    for name in ("run/one", "run/two.5", "walk/three"):
        frames(raw / name)
    (raw / "walk" / "flow").mkdir()
    for name in ("x_1.jpg", "y_1.jpg"):
        (raw / "walk" / "flow" / name).touch()
    script("folder")(raw, tmp_path / "out", 0.0, 0)
    manifest = Manifest.read(tmp_path / "out" / "train.csv")
    assert [Path(manifest.record(i).path).name for i in range(len(manifest))] == ["one", "two.5", "three"]
    assert "not one video: holds 2 series of images, x_* and y_*" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "ssv2"])
def test_official_lists_of_extracted_frames(tmp_path, name):
    raw = tmp_path / "raw"
    if name == "ucf101":
        (raw / "lists").mkdir(parents=True)
        lines = "".join(f"{i} {label}\n" for i, label in enumerate(labels("ucf101"), 1))
        (raw / "lists" / "classInd.txt").write_text(lines)
        for split in ("train", "test"):
            (raw / "lists" / f"{split}list01.txt").write_text("YoYo/v_YoYo_g01_c01.avi 101\n")
        folder = raw / "frames" / "v_YoYo_g01_c01"
    elif name == "hmdb51":
        (raw / "splits").mkdir(parents=True)
        for label in labels("hmdb51"):
            line = "a.b.avi 1\nc.avi 2\n" if label == "wave" else ""
            (raw / "splits" / f"{label}_test_split1.txt").write_text(line)
        folder = raw / "frames" / "wave" / "a.b"
        frames(raw / "frames" / "wave" / "c")
    else:
        (raw / "labels").mkdir(parents=True)
        numbers = {label: i for i, label in enumerate(labels("ssv2"))}
        (raw / "labels" / "labels.json").write_text("\ufeff" + json.dumps(numbers), encoding="utf-8")
        for split in ("train", "validation"):  # and no test.json
            entries = [{"id": "7", "template": "Folding [something]"}]
            (raw / "labels" / f"{split}.json").write_text(json.dumps(entries))
        folder = raw / "frames" / "7"
    frames(folder)
    script(name)(raw, tmp_path / "out")
    assert Manifest.read(tmp_path / "out" / "train.csv").record(0).path == str(folder)


def test_broken_lists_name_the_file(tmp_path, put):
    raw = tmp_path / "raw"
    (raw / "labels").mkdir(parents=True)
    numbers = {label: i for i, label in enumerate(labels("ssv2"))}
    (raw / "labels" / "labels.json").write_text(json.dumps(numbers))
    (raw / "labels" / "validation.json").write_text('[{"id": "1", "template": "Folding [something]"}]')
    (raw / "labels" / "train.json").write_text('[{"id": "1", "templ')
    with pytest.raises(ValueError, match=r"train.json: is not a whole JSON file, download it again"):
        script("ssv2")(raw, tmp_path / "out")
    (raw / "labels" / "train.json").write_text('[{"id": "1"}]')
    with pytest.raises(ValueError, match=r"train.json: video 1 has no template"):
        script("ssv2")(raw, tmp_path / "out")


def test_kinetics_as_others_write_and_download_it(tmp_path, put):
    raw = tmp_path / "raw"
    raw.mkdir()
    header = "label,youtube_id,time_start,time_end\n"
    (raw / "train.csv").write_text(header + "zumba,abcdefghijk,12.0,22.0\n")
    (raw / "val.csv").write_text(header + "zumba,bbbbbbbbbbb,1,x\n")
    put(raw / "abcdefghijk_000012_000022.mp4.webm")
    with pytest.raises(ValueError, match="video bbbbbbbbbbb: time_end is no number of seconds: 'x'"):
        script("kinetics")(raw, tmp_path / "out", 400)
    (raw / "val.csv").write_text(header + "zumba,abcdefghijk,12.0,22.0\n")
    script("kinetics")(raw, tmp_path / "out", 400)
    assert listed(tmp_path / "out", "train")[0][0] == "abcdefghijk_000012_000022.mp4.webm"


def test_hmdb51_as_it_was_filmed_not_stabilised(tmp_path, put):
    raw = tmp_path / "raw"
    (raw / "splits").mkdir(parents=True)
    for label in labels("hmdb51"):
        text = "a.avi 1\nb.avi 2\n" if label == "wave" else ""
        (raw / "splits" / f"{label}_test_split1.txt").write_text(text)
    for copy in ("hmdb51_org", "hmdb51_sta"):
        put(raw / copy / "wave" / "a.avi")
        put(raw / copy / "wave" / "b.avi")
    script("hmdb51")(raw, tmp_path / "out")
    assert "hmdb51_org" in Manifest.read(tmp_path / "out" / "train.csv").record(0).path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ucf101", r"raw: holds no classInd.txt, neither itself nor one or two folders deeper"),
        ("hmdb51", r"raw: holds no brush_hair_test_split1.txt"),
        ("ssv2", r"raw: holds no labels.json or something-something-v2-labels.json"),
        ("kinetics", r"raw: holds no train.csv or \*\[_-\]train.csv"),
        ("folder", r"none of the 0 videos of train was found: looked for CLASS/video.mp4"),
    ],
)
def test_a_wrong_directory_says_what_was_looked_for(tmp_path, name, message):
    (tmp_path / "raw").mkdir()
    with pytest.raises(ValueError, match=message):
        script(name)(tmp_path / "raw", tmp_path / "out")
    with pytest.raises(ValueError, match="none: no such directory"):
        script(name)(tmp_path / "none", tmp_path / "out")


def test_lists_without_videos(tmp_path, put):
    (tmp_path / "raw").mkdir()
    for split in ("train", "val"):
        (tmp_path / "raw" / f"{split}.csv").write_text("label,youtube_id,time_start,time_end\nzumba,-abcdefghij,7,17\n")
    message = "none of the 1 videos of train was found: looked for files such as -abcdefghij_000007_000017.mp4 or"
    with pytest.raises(ValueError, match=message):
        script("kinetics")(tmp_path / "raw", tmp_path / "out", 400)
    put(tmp_path / "raw" / "-abcdefghij.mp4")
    with pytest.raises(ValueError, match="name another OUT_DIR"):
        script("kinetics")(tmp_path / "raw", tmp_path / "raw", 400)
    (tmp_path / "raw" / "val.csv").write_text("label,youtube_id,time_start,time_end\nZumba,-abcdefghij,7,17\n")
    with pytest.raises(ValueError, match=r"'Zumba', in the val list, is not a class of Kinetics-400"):
        script("kinetics")(tmp_path / "raw", tmp_path / "out", 400)


@pytest.mark.slow
def test_on_the_command_line(tmp_path, put):
    put(tmp_path / "raw" / "run" / "a.mp4")

    def run(*arguments):
        command = [sys.executable, str(DATASETS / "folder.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    assert run(tmp_path / "raw", tmp_path / "out").returncode == 0
    assert listed(tmp_path / "out", "train") == [("a.mp4", 0)]
    wrong = run(tmp_path / "none", tmp_path / "out")
    assert wrong.returncode == 2
    assert wrong.stderr == f"error: {tmp_path / 'none'}: no such directory\n"
