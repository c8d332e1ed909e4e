import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tubelet.bench.ceiling import Ceiling
from tubelet.bench.contenders import SYSTEMS
from tubelet.bench.step import Timing, bench, print_timings


@pytest.mark.parametrize("system", SYSTEMS)
def test_both_are_timed(system):
    timing = bench(system, "tiny", batch=1, image_size=32, steps=1)
    assert timing.ours > 0
    assert timing.products > 0
    assert timing.attention > 0
    assert timing.theirs is not None
    assert timing.theirs > 0


def test_the_ceiling_knows_every_product_and_attention_of_a_step():
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 16), torch.randn(2, 1, 8, 16)

    def passes():
        y = layer(layer(x))
        F.scaled_dot_product_attention(y, y, y).sum().backward()

    ceiling = Ceiling(passes, "cpu")
    names = {str(kernel.overloadpacket): count for (kernel, *_), count in ceiling.counts.items()}
    # forward: 2 layers; backward: the gradient of a weight twice, and of an input once, because x needs none
    assert names.pop("aten.addmm") == 2
    assert sum(count for (kernel, *_), count in ceiling.counts.items() if "aten.mm" in str(kernel)) == 3
    assert sum("attention" in name for name in names) == 2
    assert min(ceiling.time()) > 0


def test_the_table(capsys):
    print_timings([Timing("vivit", ours=100.0, products=60.0, attention=30.0, theirs=130.0)])
    assert "90.0      60.0       30.0    90%         130.0   1.30\n" in capsys.readouterr().out
    print_timings([Timing("vivit", ours=100.0, products=60.0, attention=30.0, compiled=80.0)], compiled=True)
    out = capsys.readouterr().out
    assert "80.0            -\ntransformers is not installed" in out


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown system 'c3d', expected one of videomae-pretraining"):
        bench("c3d")
    with pytest.raises(ValueError, match="unknown size 'xl', expected one of tiny"):
        bench("vivit", "xl")
