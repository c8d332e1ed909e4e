"""The published checkpoints that `load_model` reads by their name on the hub: sizes, clip, licence, accuracy.

The accuracies are those of the authors, of the files on the hub, in percent. Sources: Z, VideoMAE's MODEL_ZOO.md
(https://github.com/MCG-NJU/VideoMAE; of the files that were on the hub first, an earlier edition of it); T,
TimeSformer's README (https://github.com/facebookresearch/TimeSformer). Licences are those of the repositories on the
hub. What no source says is left empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_NC = "cc-by-nc-4.0"


@dataclass(frozen=True)
class Published:
    """encoder: its file in conf/encoder. millions: weights of the encoder. learned: what it was pretrained or
    fine-tuned on. clip: frames x pixels. top1: in percent, of `views` (frames x clips x crops) of a test video.
    """

    encoder: str
    millions: float
    learned: str
    clip: str
    licence: str
    top1: float | None = None
    views: str = ""
    source: str = ""


def _videomae() -> Iterator[tuple[str, Published]]:
    sizes = {"small": 21.9, "base": 86.2, "base-short": 86.2, "large": 303.9, "huge": 631.6}
    trained = [
        ("base", "pretrained, K400, 1600 epochs", None), ("base-short", "pretrained, K400, 800 epochs", None),
        ("large", "pretrained, K400, 1600 epochs", None), ("base-ssv2", "pretrained, SSv2, 2400 epochs", None),
        ("base-short-ssv2", "pretrained, SSv2, 800 epochs", None), ("small-finetuned-kinetics", "K400", 79.0),
        ("base-short-finetuned-kinetics", "K400", 79.4), ("base-finetuned-kinetics", "K400", 80.9),
        ("large-finetuned-kinetics", "K400", 84.7), ("huge-finetuned-kinetics", "K400", 86.6),
        ("small-finetuned-ssv2", "SSv2", 66.8), ("base-short-finetuned-ssv2", "SSv2", 69.6),
        ("base-finetuned-ssv2", "SSv2", 70.6),
    ]  # fmt: skip
    for name, learned, top1 in trained:
        size = name.partition("-")[0]
        views = "" if top1 is None else "16x2x3" if learned == "SSv2" else "16x5x3"
        yield (
            f"MCG-NJU/videomae-{name}",
            Published(f"vit_{size}", sizes[size], learned, "16x224", _NC, top1, views, "Z" if views else ""),
        )


def _videomae_v2() -> Iterator[tuple[str, Published]]:
    for size, millions in (("Base", 86.2), ("Large", 303.9), ("Huge", 631.6), ("giant", 1011.6)):
        learned = "pretrained, UnlabeledHybrid"
        yield f"OpenGVLab/VideoMAEv2-{size}", Published(f"vit_{size.lower()}", millions, learned, "16x224", _NC)


def _timesformer() -> Iterator[tuple[str, Published]]:
    for kind, millions, clip, found in (
        ("base", 121.3, "8x224", {"k400": 77.9, "k600": 79.1, "ssv2": 59.1}),
        ("hr", 121.7, "16x448", {"k400": 79.6, "ssv2": 61.8}),
    ):
        for data, top1 in found.items():
            learned = "SSv2" if data == "ssv2" else data.upper()
            yield (
                f"facebook/timesformer-{kind}-finetuned-{data}",
                Published(f"timesformer_{kind}", millions, learned, clip, _NC, top1, "", "T"),
            )


PUBLISHED: dict[str, Published] = {
    **dict(_videomae()),
    **dict(_videomae_v2()),
    "google/vivit-b-16x2-kinetics400": Published("vivit_base", 88.6, "K400", "32x224", "mit"),
    **dict(_timesformer()),
}
"""Name on the hub -> what is known of it."""
