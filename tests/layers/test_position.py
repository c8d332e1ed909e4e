import math

import pytest
import torch

from tubelet.layers.position import resize_table, sincos, sincos_3d


def test_sincos_by_hand():
    table = sincos(3, 4)
    assert table.shape == (1, 3, 4)
    assert table[0, 0].tolist() == [0, 1, 0, 1]
    expected = [math.sin(2), math.cos(2), math.sin(2 / 100), math.cos(2 / 100)]
    assert table[0, 2].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_table_at_its_own_size_is_itself():
    table = torch.randn(1, 24, 5)
    assert torch.equal(resize_table(table, (2, 3, 4), (2, 3, 4)), table)


def test_time_is_linear_at_every_place():
    table = torch.tensor([[[0.0], [10.0], [1.0], [12.0]]])  # two steps of two places
    resized = resize_table(table, (2, 1, 2), (4, 1, 2))
    assert resized[0, :, 0].tolist() == pytest.approx([0, 10, 0.25, 10.5, 0.75, 11.5, 1, 12])


def test_space_is_bicubic_within_every_time_step():
    table = torch.randn(1, 2 * 3 * 4, 5)
    resized = resize_table(table, (2, 3, 4), (2, 6, 8))[0].unflatten(0, (2, 6, 8))
    for step in range(2):
        image = table[0].unflatten(0, (2, 3, 4))[step].permute(2, 0, 1)[None]
        expected = torch.nn.functional.interpolate(image, (6, 8), mode="bicubic", align_corners=False)
        assert torch.allclose(resized[step], expected[0].permute(1, 2, 0), atol=1e-6)


def test_a_table_of_another_size_is_refused():
    with pytest.raises(ValueError, match="5 positions is not a grid of 2x1x2"):
        resize_table(torch.zeros(1, 5, 3), (2, 1, 2), (4, 1, 2))


def test_sincos_3d_tells_the_axes_apart() -> None:
    table = sincos_3d((2, 3, 4), 16)[0].unflatten(0, (2, 3, 4))  # [t,h,w,D]
    t, h, w = table[..., :4], table[..., 4:10], table[..., 10:]
    assert torch.equal(t, t[:, :1, :1].expand_as(t))
    assert torch.equal(h, h[:1, :, :1].expand_as(h))
    assert torch.equal(w, w[:1, :1].expand_as(w))
    # by hand: the first frequency is 1, the second of a quarter of 16 columns is 100 ** -(1/2)
    assert t[1, 0, 0].tolist() == pytest.approx([math.sin(1), math.sin(0.1), math.cos(1), math.cos(0.1)])
    assert w[0, 0, 3, 0].item() == pytest.approx(math.sin(3))
