"""What to pretrain a small data set with, chosen by its number of videos; in a config `${small_pretraining:KEY,...}`.

Found on the scenes of the demo at 32 pixels (docs/learning.md). The target is flow for every kind of video: what is
worth learning from few videos is what moves, and pixels of static textures or of fine ones take far longer to teach it.
Any value given on the command line goes before the chosen one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

_FEW = 2000
_WHY = {
    "target": "flow: motion alone, whatever the texture. pixels learned nothing of it in this time",
    "masking": "half of the frames: a hidden frame needs the motion before and after it",
    "decoder": "as wide as the encoder, two blocks: it has little to draw",
    "batch_size": "with two clips of each video; few videos need many steps, not large ones",
    "base_lr": "at batch 256: a rate of 5e-4 for this batch; at 2e-3 the features were lost on fine textures",
    "max_epochs": "about {steps:,} steps",
}


@lru_cache(maxsize=8)
def settings(videos: int) -> dict[str, Any]:
    """Raises ValueError if there is not even a pair of videos."""
    if videos < 2:
        raise ValueError(f"pretraining needs at least 2 videos, got {videos}")
    batch, steps = (min(4, videos), 4000) if videos <= _FEW else (32, 40000)
    epochs = min(1600, max(20, round(steps / (videos // batch))))
    return {
        "batch_size": batch,
        "base_lr": 5e-4 * 256 / batch,
        "max_epochs": epochs,
        "warmup_epochs": max(1, epochs // 20),
        "steps": epochs * (videos // batch),
    }


def reasons(videos: int) -> list[tuple[str, str, str]]:
    """(setting, value, why) of what is chosen."""
    chosen = settings(videos)
    named = {"target": "flow", "masking": "frame, half", "decoder": "self-attention, 2 blocks"}
    values = {**named, **{key: f"{chosen[key]:g}" for key in ("batch_size", "base_lr", "max_epochs")}}
    return [(key, values[key], why.format(**chosen)) for key, why in _WHY.items()]
