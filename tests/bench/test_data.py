import pytest

from tubelet.bench.data import Files, bench, print_timings, render
from tubelet.data.manifest import Manifest
from tubelet.data.reader import count_frames, read_frames


def test_every_stage_is_measured(videos, capsys):
    timings = bench({"small": Files(videos)}, ["pyav"], clips=2, rounds=1, repeats=3)
    assert [(t.files, t.reader, t.crops) for t in timings] == [("small", "pyav", "loader"), ("small", "pyav", "device")]
    assert all(min(t.decode, t.whole, t.repeated) > 0 for t in timings)
    assert timings[1].device > 0
    print_timings(timings, 3)
    assert "R=3" in capsys.readouterr().out


@pytest.mark.slow
def test_rendered_videos(tmp_path):
    rendered = render(tmp_path, videos=1, frames=9)
    shapes = []
    for files in rendered.values():
        manifest = Manifest.read(files.manifest)
        assert len(manifest) == 1
        last = 8 if files.stride == 4 else 2  # of frames 0 to 8, or of 0, 4 and 8
        assert count_frames(manifest.record(0).path) == last + 1
        frames = read_frames(manifest.record(0).path, [0, last]).float()
        assert (frames[0] - frames[1]).abs().mean() > 1  # something moves
        shapes.append(tuple(frames.shape[1:3]))
    assert [files.stride for files in rendered.values()] == [4, 4, 1]
    assert shapes == [(480, 640), (256, 342), (256, 342)]  # H.264 wants even sides
