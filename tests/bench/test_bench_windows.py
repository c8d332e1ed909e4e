import pytest

from tubelet.bench.windows import bench, print_timings


@pytest.mark.slow
def test_every_stage_is_measured(videos, capsys):
    timing = bench(videos, "vit_demo", stride=None, frame_stride=2, device="cpu", workers=2, rounds=1)
    assert timing.windows_made == 16  # 20 sampled frames in windows of 8, for five videos, and one of the short one
    assert min(timing.decode, timing.windows, timing.encode, timing.whole) > 0
    assert timing.limit == timing.decode + timing.encode
    print_timings({"small": timing}, "cpu")
    assert "/ limit" in capsys.readouterr().out
