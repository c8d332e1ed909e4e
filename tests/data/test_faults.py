"""Broken files of every kind: no reader hangs or takes the process along, training goes on, evaluation says what it
left out."""

import csv
import logging
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from faults import write_corpus

from tubelet.clip import ClipGrid
from tubelet.data.datamodule import VideoDataModule
from tubelet.data.manifest import Manifest
from tubelet.data.randomness import generator
from tubelet.data.reader import VideoError, available_readers, read_clip, read_frames, why_not
from tubelet.data.transforms import Preprocess
from tubelet.videos.processes import Killed, run_jobs
from tubelet.videos.verify import verify

GRID = ClipGrid(frames=4, height=32, width=32, tubelet=2, patch=8)
LIMIT = 60.0  # seconds: whoever takes more hangs
# decord and torchcodec seek, so that they read other clips of a cut file than PyAV does; all must fail on these
HOPELESS = {"text.mp4", "empty.mp4", "audio.mp4", "folder.mp4", "dangling.mp4", "pipe.mp4", "forbidden.mp4"}


@pytest.fixture(scope="module", params=[2, pytest.param(23, marks=pytest.mark.slow)], ids=["some", "all"])
def corpus(request, tmp_path_factory):
    files = write_corpus(tmp_path_factory.mktemp("faults") / "corpus", flips=request.param)
    return files if request.param > 2 else [file for i, file in enumerate(files) if i % 3 == 0 or file.name in HOPELESS]


def read(job, report):
    """What a reader makes of a file: "frames", or why not."""
    path, reader = job
    try:
        clip = read_clip(path, lambda video: [min(3 + 4 * i, video.num_frames - 1) for i in range(8)], reader)
    except VideoError as error:
        return error.reason if error.path == path and "\n" not in str(error) else f"wrongly said: {error}"
    assert clip.dtype == torch.uint8
    assert clip.ndim == 4
    return "frames"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "reader", ["auto", *(pytest.param(name, marks=pytest.mark.slow) for name in available_readers())]
)
def test_no_reader_hangs_or_crashes(corpus, reader, record_property):
    results = list(run_jobs(read, [(str(file), reader) for file in corpus], workers=2, limit=LIMIT))
    assert len(results) == len(corpus)
    assert [(job, result) for job, result in results if isinstance(result, Killed)] == []
    assert [result for _, result in results if str(result).startswith("wrongly said")] == []
    readable = {Path(path).name for (path, _), result in results if result == "frames"}
    assert not readable & HOPELESS
    record_property("readable", len(readable))
    print(f"{reader}: {len(readable)} of {len(corpus)} mutants give frames, {len(corpus) - len(readable)} an error")


@pytest.fixture
def manifest(corpus, tmp_path):
    """Each file is a class of its own."""
    columns = {"path": [str(file) for file in corpus], "label": list(range(len(corpus)))}
    Manifest.from_columns(tmp_path, columns).write(tmp_path / "all.csv")
    return tmp_path / "all.csv"


def datamodule(manifest, run_dir, **settings):
    return VideoDataModule(
        **{"train": str(manifest), "test": str(manifest), "batch_size": 4, "num_workers": 2, "max_bad_share": 1.0},
        **{"stride": 2, "flip": False, "grid": GRID, "preprocess": Preprocess(), "run_dir": run_dir, "timeout": LIMIT},
        **settings,
    )


def rows(file):
    with open(file, newline="") as lines:
        return list(csv.reader(lines))


def train_an_epoch(data):
    """Steps done; each clip's label must be that of the file whose frames these are, be it a replacement."""
    data.setup("fit")
    dataset, steps = data.datasets["train"], 0
    for batch in data.train_dataloader():
        steps += 1
        for clip, label, index in zip(batch.clip, batch.label.tolist(), batch.index.tolist(), strict=True):
            record = dataset.manifest.record(label)
            if dataset.reader == "auto" and record.status is None:
                continue  # not verified: decord reads a damaged file anew each time, and may hand it on to PyAV
            frames = dataset.decode(record, 0, index)
            view = dataset.augment(frames, dataset.size, generator(data.seed, 0, index, "view", 0))
            assert torch.equal(clip, view.permute(3, 0, 1, 2)), record.path
    return steps


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("reader", ["auto", "pyav"])
def test_training_goes_on_and_names_each_bad_file_once(corpus, manifest, tmp_path, reader):
    assert train_an_epoch(datamodule(manifest, tmp_path, reader=reader)) == len(corpus) // 4
    named = Counter(path for path, _ in rows(tmp_path / "bad_videos.csv")[1:])
    assert set(named.values()) == {1}
    assert {Path(path).name for path in named} <= {file.name for file in corpus}
    missing = len(corpus) % 4  # those of the last, smaller batch, which is dropped
    assert len(HOPELESS - {Path(path).name for path in named}) <= missing


@pytest.mark.timeout(1200)
def test_evaluation_substitutes_nothing_and_says_what_it_left_out(corpus, manifest, tmp_path, caplog):
    data = datamodule(manifest, tmp_path)
    data.setup("test")
    with caplog.at_level(logging.WARNING):
        batches = list(data.test_dataloader())
    index = torch.cat([batch.index for batch in batches]).tolist()
    assert index == torch.cat([batch.label for batch in batches]).tolist()
    assert index == sorted(set(index))
    left_out = [path for path, _ in rows(tmp_path / "bad_videos_test.csv")[1:]]
    assert sorted(left_out) == sorted(str(file) for i, file in enumerate(corpus) if i not in index)
    assert {Path(path).name for path in left_out} >= HOPELESS
    assert f"{len(left_out)} of {len(corpus)} videos were left out" in caplog.text


@pytest.mark.timeout(1200)
def test_training_on_a_verified_manifest_meets_nothing_new(corpus, manifest, tmp_path):
    bad = verify(manifest, tmp_path / "verified.csv", workers=2, limit=LIMIT)
    verified = Manifest.read(tmp_path / "verified.csv")
    records = [verified.record(i) for i in range(len(verified))]
    assert sum(record.status != "ok" for record in records) == bad
    for record in records:
        if record.status == "ok":  # any frame that is promised now can be had, and no other
            assert read_frames(record.path, [0, record.num_frames - 1], record.reader).shape[0] == 2
            with pytest.raises(VideoError):
                read_frames(record.path, [record.num_frames], "pyav")
    assert train_an_epoch(datamodule(tmp_path / "verified.csv", tmp_path / "run")) == len(corpus) // 4
    expected = {record.path: record.status for record in records if record.status != "ok"}
    named = dict(rows(tmp_path / "run" / "bad_videos.csv")[1:])
    assert named.items() <= expected.items()


def read_as_nobody(path, report):
    for reader in available_readers():
        why_not(reader)
    if os.path.isfile(path):
        with tempfile.TemporaryDirectory() as elsewhere:  # imports what a reader needs, which only root may see
            read((shutil.copy(path, elsewhere), "auto"), report)
    os.seteuid(65534)
    return read((path, "auto"), report)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root alone can become somebody else")
@pytest.mark.slow
def test_no_permission(videos):
    directory = Path(tempfile.mkdtemp())  # pytest's own is closed to others
    try:
        directory.chmod(0o755)
        shutil.copy(videos.parent / "0.mp4", directory / "0.mp4")
        for mode, expected in ((0o644, "frames"), (0o600, "Permission denied")):
            (directory / "0.mp4").chmod(mode)
            ((_, result),) = run_jobs(read_as_nobody, [str(directory / "0.mp4")], workers=1, limit=LIMIT)
            assert expected in result
        shutil.copytree(directory, directory / "images")
        (directory / "images").chmod(0o700)
        ((_, result),) = run_jobs(read_as_nobody, [str(directory / "images")], workers=1, limit=LIMIT)
        assert "Permission denied" in result
    finally:
        shutil.rmtree(directory)
