from tubelet.bench.data import bench, print_timings, render
from tubelet.data.manifest import Manifest
from tubelet.data.reader import count_frames, read_frames


def test_every_stage_is_measured(videos, capsys):
    (timing,) = bench({"small": videos}, ["pyav"], clips=2, rounds=1, repeats=3)
    assert (timing.files, timing.reader) == ("small", "pyav")
    assert min(timing.decode, timing.whole, timing.repeated) > 0
    print_timings([timing], 3)
    assert "R=3" in capsys.readouterr().out


def test_rendered_videos(tmp_path):
    manifests = render(tmp_path, videos=1, frames=6)
    shapes = []
    for file in manifests.values():
        manifest = Manifest.read(file)
        assert len(manifest) == 1
        assert count_frames(manifest.record(0).path) == 6
        frames = read_frames(manifest.record(0).path, [0, 5]).float()
        assert (frames[0] - frames[1]).abs().mean() > 1  # something moves
        shapes.append(tuple(frames.shape[1:3]))
    assert shapes == [(480, 640), (256, 342)]  # H.264 wants even sides
