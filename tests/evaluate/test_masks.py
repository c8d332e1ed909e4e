from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tubelet.evaluate.masks import draw_masks


@pytest.mark.slow
def test_every_masking_is_drawn(tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(draw_masks(tmp_path / "masks.png")).convert("RGB")).reshape(-1, 3)
    for colour in ((0x26, 0x32, 0x3F), (0x9F, 0xB4, 0xC7), (0xF0, 0xE9, 0xDC)):
        assert (pixels == colour).all(1).mean() > 0.02


@pytest.mark.parametrize(
    ("name", "ratio", "message"),
    [
        ("x.pdf", 0.75, "the picture of masks is a .png"),
        ("no/x.png", 0.75, "there is no directory"),
        ("x.png", 1.2, "must lie in .0, 1., got 1.2"),
    ],
)
def test_what_cannot_be_drawn(name: str, ratio: float, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        draw_masks(tmp_path / name, ratio)
    assert not list(tmp_path.iterdir())
