"""One picture of every masking: `tubelet masks --out masks.png`. A row is a masking, a panel one of its time steps."""

from __future__ import annotations

from pathlib import Path

from tubelet.clip import ClipGrid
from tubelet.data.randomness import generator
from tubelet.masking import generators
from tubelet.storage import replacing


def draw_masks(out: Path, ratio: float = 0.75, seed: int = 0) -> Path:
    """Dark: hidden, and to predict. Blue: hidden, and not to predict (dual masking). Light: visible.

    Raises ValueError if `out` is no .png, if its directory does not exist, or if a masking refuses the ratio.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    if out.suffix != ".png":
        raise ValueError(f"{out}: the picture of masks is a .png")
    if not out.parent.is_dir():
        raise ValueError(f"{out}: there is no directory {out.parent}")
    grid, kinds = ClipGrid(16, 224, 224, 2, 16), generators()
    figure = Figure(figsize=(1.0 + grid.t, 1.02 * len(kinds)), layout="constrained")
    panels = figure.subplots(len(kinds), grid.t, squeeze=False)
    colours = ListedColormap(["#f0e9dc", "#9fb4c7", "#26323f"])
    for row, (name, masking) in zip(panels, kinds.items(), strict=True):
        hidden = masking(grid, ratio=ratio, generator=generator(seed, "masks", name))
        shade = hidden.int() * 2 if hidden.ndim == 1 else hidden[0].int() * 2 - (hidden[0] & hidden[1]).int()
        for step, (axes, image) in enumerate(zip(row, shade.view(grid.t, grid.h, grid.w), strict=True)):
            axes.imshow(image, cmap=colours, vmin=0, vmax=2, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if row is panels[-1]:
                axes.set_xlabel(f"step {step + 1}", fontsize=8)
        share = float((shade > 0).double().mean())
        row[0].set_ylabel(f"{name}\n{share:.3g}", rotation=0, ha="right", va="center", fontsize=9)
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png", dpi=84)
    return out
