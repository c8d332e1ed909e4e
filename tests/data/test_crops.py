import math

import pytest

from tubelet.data.crops import Box, MultiScale, RandomResized, ShortSideJitter, fit_box
from tubelet.data.randomness import generator


def test_multi_scale_boxes_are_those_of_videomae():
    crop = MultiScale((1.0, 0.875, 0.75, 0.66))
    boxes = {crop(256, 340, (224, 224), generator(i)) for i in range(3000)}
    # sides: 256 times the scales, rounded down, at most one step apart
    assert {(box.height, box.width) for box in boxes} == {
        (256, 256), (256, 224), (224, 256), (224, 224), (224, 192), (192, 224), (192, 192), (192, 168), (168, 192),
        (168, 168),
    }  # fmt: skip
    # places of the 168 x 168 box: margins 88 and 172 in quarters of 22 and 43
    places = {(box.top // 22, box.left // 43) for box in boxes if (box.height, box.width) == (168, 168)}
    corners = {(y, x) for y in (0, 2, 4) for x in (0, 2, 4)}
    assert places == corners | {(1, 1), (1, 3), (3, 1), (3, 3)}
    assert all(box.top + box.height <= 256 and box.left + box.width <= 340 for box in boxes)


def test_boxes_have_the_aspect_of_the_clip():
    assert fit_box(100, 200, (32, 32)) == Box(0, 50, 100, 100)
    assert fit_box(100, 200, (32, 96)) == Box(17, 0, 66, 200)
    with pytest.raises(ValueError, match="a frame of 1x1 holds no box"):
        fit_box(1, 1, (1, 2))


def test_random_resized_boxes():
    crop = RandomResized(scale=(0.25, 0.5), ratio=(0.5, 2.0))
    boxes = [crop(200, 300, (32, 32), generator(i)) for i in range(500)]
    assert boxes[0] == crop(200, 300, (32, 32), generator(0))
    areas = [box.height * box.width / 60_000 for box in boxes]
    ratios = [box.width / box.height for box in boxes]
    assert 0.245 < min(areas) < 0.27
    assert 0.48 < max(areas) < 0.505
    assert 0.49 < min(ratios) < 0.55
    assert 1.8 < max(ratios) < 2.04
    assert sum(ratio < 1 for ratio in ratios) == pytest.approx(250, abs=40)  # even in the logarithm
    assert all(box.top + box.height <= 200 and box.left + box.width <= 300 for box in boxes)
    assert {box.top for box in boxes if box.height == 200} <= {0}
    # a frame of 8 x 400 holds no box of half its area and such a ratio
    assert RandomResized((0.5, 1.0), (0.5, 2.0))(8, 400, (32, 32), generator(0)) == Box(0, 196, 8, 8)


def test_short_side_jitter_is_a_window_of_the_resized_frame():
    crop = ShortSideJitter(40, 80)
    boxes = [crop(120, 160, (32, 24), generator(i)) for i in range(800)]
    # a short side of 80 shrinks 120 rows by 1.5: the window covers 48 x 36; one of 40 by 3: 96 x 72
    heights = {box.height for box in boxes}
    assert (min(heights), max(heights)) == (48, 96)
    assert all(abs(box.width - box.height * 24 / 32) <= 1 for box in boxes)
    smallest = [box for box in boxes if box.height < 50]
    assert max(box.top for box in smallest) > 60
    assert max(box.left for box in smallest) > 100
    assert all(box.top + box.height <= 120 and box.left + box.width <= 160 for box in boxes)
    with pytest.raises(ValueError, match="a crop of 32x48 does not fit in a short side of 40"):
        crop(120, 160, (32, 48), generator(0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: MultiScale((1.0, 1.2)), r"scales must lie in \(0, 1\], got \[1.0, 1.2\]"),
        (lambda: RandomResized(scale=(0.5, 0.1)), r"scale must be \[low, high\] with 0 < low <= high <= 1"),
        (lambda: RandomResized(ratio=(0.0, math.inf)), r"ratio must be \[low, high\] with 0 < low"),
        (lambda: ShortSideJitter(320, 256), "short sides must be 1 <= low <= high, got 320 and 256"),
    ],
)
def test_settings_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
