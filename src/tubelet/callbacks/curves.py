"""loss.png at the end of a run: training and validation loss over steps."""

from __future__ import annotations

from pathlib import Path

import lightning as L

from tubelet import storage
from tubelet.loggers.curves import read_metrics


class LossCurve(L.Callback):
    """Draws loss.png from metrics.csv when training ends."""

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = Path(trainer.default_root_dir) / "metrics.csv"
        if trainer.is_global_zero and metrics.exists():
            draw_losses(metrics, metrics.with_name("loss.png"))


def draw_losses(metrics: Path, picture: Path) -> None:
    """Every metric of metrics.csv whose name ends in `loss`, over optimizer steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in read_metrics(metrics).items():
        if name.endswith("loss") and curve:
            steps, values = zip(*curve, strict=True)
            style = "-" if name.startswith("train") else ("--" if name.endswith("patch_mean_loss") else "o-")
            axes.plot(steps, values, style, label=name, linewidth=1.2, markersize=3)
    axes.set(xlabel="optimizer step", ylabel="loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    with storage.replacing(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
