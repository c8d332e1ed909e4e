"""`auto` on every kind of file, and the table of docs/videos.md measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from kinds import FRAMES, KINDS, VARIABLE, copy, encode, h264

from tubelet.data.reader import VideoError, count_frames, open_video, read_frames, why_not
from tubelet.data.reader.kind import kind_of
from tubelet.data.reader.pyav import PyavVideo
from tubelet.videos.verify import Job, _same, examine

DOCS = Path(__file__).parents[2] / "docs" / "videos.md"
MEASURED = ("decord", "pyav_seek", "auto")


def from_the_start(file: Path) -> list:
    with open_video(file, "pyav") as video:
        assert isinstance(video, PyavVideo)
        return [video.picture(frame) for frame in video.decoded()]


def verdict(file: Path, reader: str, expected: list) -> str:
    """ "right", "wrong" (other frames than those asked for) or "refuses"."""
    last = len(expected) - 1
    clips = [[n] for n in (0, 11, 13, last - 1, last)] + [
        list(range(s, min(s + 24, last), 2)) for s in range(0, last, 7)
    ]
    said = {"right"}
    for clip in [*clips, list(range(last + 1))]:
        try:
            frames = read_frames(file, clip, reader)
        except VideoError:
            said.add("refuses")
        else:
            if not all(_same(frame.numpy(), expected[n]) for n, frame in zip(clip, frames, strict=True)):
                said.add("wrong")
    return "wrong" if "wrong" in said else "refuses" if "refuses" in said else "right"


def table() -> dict[str, list[str]]:
    """Kind -> cells of the table in the documentation."""
    rows = [
        re.split(r"\s*\|\s*", line.strip("| \n")) for line in DOCS.read_text().splitlines() if line.startswith("| ")
    ]
    return {row[0]: row[1:] for row in rows if row[0] in KINDS}


@pytest.mark.skipif(why_not("decord") is not None, reason="the table has a column of decord")
@pytest.mark.parametrize("kind", KINDS)
def test_the_table_in_the_documentation(kind: str, tmp_path: Path) -> None:
    file = KINDS[kind](tmp_path)
    expected = from_the_start(file)
    assert len(expected) > FRAMES // 2
    found = [verdict(file, reader, expected) for reader in MEASURED]
    assert found[-1] == "right"
    assert table().get(kind) == [*found[:-1], kind_of(str(file)).readers[0]]


def test_h264_copied_from_an_avi(tmp_path: Path) -> None:
    """Its B-frames lie in the order of decoding. (decord is right by chance, so the table does not list it.)"""
    file = copy(h264(tmp_path / "a.avi"), tmp_path / "a.mp4")
    assert kind_of(str(file)).readers == ("pyav",)
    assert verdict(file, "auto", from_the_start(file)) == "right"


@pytest.mark.parametrize("kind", ["mp4, H.264, cut without re-encoding (edit list)", "webm, VP8 with hidden frames"])
def test_auto_counts_only_what_is_shown(kind: str, tmp_path: Path) -> None:
    file = KINDS[kind](tmp_path)
    assert count_frames(file) == len(from_the_start(file)) < FRAMES
    finding = examine(Job(str(file)), print)
    assert (finding.status, finding.num_frames, finding.remark) == ("ok", count_frames(file), None)


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    file = KINDS["mkv, a cover picture before the video"](tmp_path)
    finding = examine(Job(str(file)), print)
    assert (finding.num_frames, finding.height, finding.width) == (FRAMES, 96, 128)


@pytest.mark.parametrize("name", ["a.ts", "a.m2ts"])
def test_decord_never_opens_a_transport_stream(name: str, tmp_path: Path) -> None:
    """It would look for the last frames for ever, in native code."""
    if reason := why_not("decord"):
        pytest.skip(reason)
    file = h264(tmp_path / name)
    with pytest.raises(
        VideoError, match=r"is an MPEG transport stream, which decord cannot search: use data.reader=auto"
    ):
        read_frames(file, [0], "decord")


def test_a_file_that_changes_is_looked_at_again(tmp_path: Path) -> None:
    whole = h264(tmp_path / "whole.mp4")
    file = tmp_path / "a.mp4"
    file.write_bytes(whole.read_bytes())
    assert "decord" in kind_of(str(file)).readers
    copy(whole, file, 0.8)
    assert "decord" not in kind_of(str(file)).readers


def test_a_cut_off_file_is_read_from_the_start(tmp_path: Path) -> None:
    whole = encode(tmp_path / "a.mp4", "libx264", {"g": "12"}, muxing={"movflags": "+faststart"}).read_bytes()
    file = tmp_path / "cut.mp4"
    file.write_bytes(whole[: len(whole) * 3 // 4])
    assert kind_of(str(file)).readers == ("pyav",)


def test_times_of_a_variable_frame_rate(tmp_path: Path) -> None:
    assert kind_of(str(h264(tmp_path / "even.mp4"))).times is None
    times = kind_of(str(KINDS["mp4, H.264, variable frame rate"](tmp_path))).times
    assert times is not None
    assert torch.allclose(torch.from_numpy(times).float(), torch.tensor(VARIABLE) / 1000, atol=1e-3)
