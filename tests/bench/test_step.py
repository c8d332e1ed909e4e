import pytest

from tubelet.bench.step import SYSTEMS, bench


@pytest.mark.parametrize("system", SYSTEMS)
def test_both_are_timed(system):
    timing = bench(system, "tiny", batch=1, image_size=32, steps=1)
    assert timing.ours > 0
    assert timing.theirs is not None
    assert timing.theirs > 0


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown system 'c3d', expected one of videomae-pretraining"):
        bench("c3d")
    with pytest.raises(ValueError, match="unknown size 'xl', expected one of tiny"):
        bench("vivit", "xl")
