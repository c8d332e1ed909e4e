import numpy as np
import pytest

from tubelet.data.randomness import generator
from tubelet.data.sampling import Sampling, centre, dense, dense_views, on_show, segment_views, segments, span


def test_centre():
    assert centre(num_frames=20, frames=4, step=2) == [6, 8, 10, 12]  # spans 7 of 20: 6 before, 7 behind
    assert centre(num_frames=7, frames=4, step=2) == [0, 2, 4, 6]


def test_dense_draws_every_start_that_fits():
    starts = [dense(10, 4, 2, generator(0, i))[0] for i in range(400)]
    assert sorted(set(starts)) == [0, 1, 2, 3]  # 3 + 6 = 9 is the last frame
    assert min(starts.count(start) for start in range(4)) > 60
    assert dense(10, 4, 2, generator(5)) == dense(10, 4, 2, generator(5))


def test_dense_views_reach_from_end_to_end():
    assert dense_views(10, 4, 2, clips=1) == [[1, 3, 5, 7]]  # 3 // 2 before
    assert dense_views(10, 4, 2, clips=2) == [[0, 2, 4, 6], [3, 5, 7, 9]]
    assert [view[0] for view in dense_views(300, 16, 4, clips=5)] == [0, 59, 119, 179, 239]  # 239 + 60 = 299


def test_videos_shorter_than_the_clip():
    assert centre(5, 4, 3) == [0, 3, 4, 4]
    assert centre(5, 4, 3, pad="loop") == [0, 3, 1, 4]  # 6 and 9 modulo 5
    assert dense(1, 3, 4, generator(0)) == [0, 0, 0]
    assert dense(2, 4, 1, generator(0), pad="loop") == [0, 1, 0, 1]
    assert dense_views(5, 4, 3, clips=2) == [[0, 3, 4, 4]] * 2


def test_a_frame_rate_instead_of_a_stride():
    sampling = Sampling(fps=7.5)
    assert sampling.views(100, 30.0, 4, 1) == dense_views(100, 4, 4, 1)
    assert sampling.views(100, 15.0, 4, 1) == dense_views(100, 4, 2, 1)
    assert sampling.views(11, 25.0, 4, 1) == [[0, 3, 7, 10]]  # 10/3 apart: 0, 3.33, 6.67, 10
    assert sampling.views(100, 30000 / 1001, 4, 2)[1] == [87, 91, 95, 99]  # 29.97 is 30 but for the rounding
    assert Sampling(fps=8).views(3, 4.0, 4, 1) == [[0, 1, 1, 2]]  # slower files show frames twice
    with pytest.raises(ValueError, match=r"data.fps is 7.5, but the file does not say"):
        sampling.draw(10, 0.0, 4, generator(0))
    assert Sampling(stride=2).draw(10, 0.0, 4, generator(3)) == dense(10, 4, 2, generator(3))


def test_segments_draw_one_frame_of_each_part():
    clips = [segments(12, 4, generator(i)) for i in range(300)]
    for part in range(4):  # 12 frames in four parts: 0-2, 3-5, 6-8, 9-11
        assert {clip[part] for clip in clips} == {3 * part, 3 * part + 1, 3 * part + 2}
    assert segments(1, 3, generator(0)) == [0, 0, 0]
    uneven = [segments(10, 4, generator(i)) for i in range(300)]  # parts of 2.5 frames: the last begins at 7.5
    assert {clip[3] for clip in uneven} == {7, 8, 9}
    assert {clip[0] for clip in uneven} == {0, 1, 2}
    assert Sampling("segments").draw(12, 0.0, 4, generator(7)) == clips[7]


def test_segment_views_are_videomaes():
    """VideoMAE's two test clips of SSv2: `int(tick * x)` and `int(tick / 2 + tick * x)`."""
    tick = 45 / 16
    first, second = segment_views(45, 16, clips=2)
    assert first == [int(tick * x) for x in range(16)]
    assert second == [int(tick / 2 + tick * x) for x in range(16)]
    assert segment_views(12, 4, clips=1) == [[1, 4, 7, 10]]  # the middles
    assert segment_views(12, 4, clips=3) == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert segment_views(2, 4, clips=1) == [[0, 0, 1, 1]]
    assert Sampling("segments").views(45, 0.0, 16, 2) == [first, second]


@pytest.mark.parametrize("sizes", [(0, 4, 2), (5, 0, 2)])
def test_nothing_to_sample(sizes):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        centre(*sizes)
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        segments(*sizes[:2], generator(0))


def test_settings_are_checked():
    with pytest.raises(ValueError, match="sampling must be dense or segments, got 'uniform'"):
        Sampling("uniform")
    with pytest.raises(ValueError, match="pad must be clamp or loop, got 'zero'"):
        Sampling(pad="zero")
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        Sampling(stride=0)
    with pytest.raises(ValueError, match=r"fps must be positive, got 0"):
        Sampling(fps=0)
    with pytest.raises(ValueError, match="stride must be positive, got 0"):
        centre(5, 4, 0)


def test_times_of_a_variable_frame_rate():
    times = np.array([0, 0.1, 0.2, 0.9, 1.0])  # frame 2 is on show until 0.9
    assert on_show(times, 5) == [0, 2, 2, 2, 2, 4]
    assert on_show(times + 3, 5) == [0, 2, 2, 2, 2, 4]
    assert Sampling(fps=5).views(5, 4.0, 3, 2, times) == [[0, 2, 2], [2, 2, 4]]
    assert Sampling(fps=5).draw(5, 4.0, 6, generator(0), times) == [0, 2, 2, 2, 2, 4]
    assert Sampling(stride=2).views(5, 4.0, 3, 1, times) == [[0, 2, 4]]  # a stride counts frames


def test_the_frames_of_a_segment():
    assert span(100, 25.0, None, None) == (0, 100)
    assert span(100, 25.0, 1.0, 2.0) == (25, 50)
    assert span(100, 30.0, 0.033, 0.1) == (1, 3)  # 1/30 and 3/30
    assert span(100, 25.0, 3.0, None) == (75, 100)
    assert span(100, 25.0, None, 9.0) == (0, 100)
    assert span(5, 4.0, 0.2, 0.95, times=np.array([0, 0.1, 0.2, 0.9, 1.0])) == (2, 4)
    with pytest.raises(ValueError, match=r"has no frame from second 4 to 5: its 100 frames end at 3.96"):
        span(100, 25.0, 4.0, 5.0)
    with pytest.raises(ValueError, match="no frame rate is known: fill its fps column"):
        span(100, 0.0, 4.0, 5.0)
