import pytest

from tubelet.bench.loop import BLOCK, BareBlocks, Overhead, bench, print_overhead


def test_blocks_with_a_save_are_judged_by_themselves() -> None:
    """Blocks 3 and 7 save: (block + 1) % 4 == 0."""
    blocks = BareBlocks()
    for block in range(9):
        bare = 100.0 + block  # the machine becomes slower
        more = 50.0 if block < 2 else 25.0 if block in (3, 7) else 5.0  # ms per step
        for times, value in ((blocks.bare, bare), (blocks.loop, bare + more)):
            times.clock.append(value)
            times.processor.append(value / 2)
        blocks.waits.append(1.0)
    result = blocks.overhead()
    assert (result.overhead, result.processor, result.data_wait) == pytest.approx((5.0, 2.5, 1.0))
    assert result.save == pytest.approx(BLOCK * 20.0)
    assert result.shares == pytest.approx(((5.0 + 0.4) / 300, (2.5 + 0.4) / 300))


@pytest.mark.slow
def test_a_real_run_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["trainer=cpu", "trainer.precision=32-true", "data.batch_size=2", "data.num_workers=0", "encoder.dim=32",
             "encoder.depth=1", "encoder.num_heads=2", "decoder.depth=1", "callbacks.progress=null"]  # fmt: skip
    result = bench(small, saves=1)
    assert isinstance(result, Overhead)
    assert 0 < result.bare < result.loop
    print_overhead(result)
    assert "by the processor" in capsys.readouterr().out


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="saves must be at least 1, got 0"):
        bench(saves=0)
