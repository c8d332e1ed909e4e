"""What a training clip costs, counted, against the sum by hand."""

from functools import partial

import pytest
import torch

from tubelet.bench.scale import cost
from tubelet.bench.subjects import draw_mask
from tubelet.config.compose import build_model
from tubelet.masking import tube


def by_hand(predicted: int, sources: int, decoder_tokens: int, cross: bool) -> float:
    """Floating-point operations of one training clip of a ViT-B at 16 x 224 x 224, 160 of 1568 tokens visible.

    A multiplication and an addition are two operations; a layer costs twice as much backward as forward, attention two
    and a half times (its kernel computes the scores again).
    """
    visible, width, narrow = 160, 768, 384
    linear = visible * (1536 * width * 2 / 3 + 12 * 12 * width**2)  # the pixels need no gradient
    attention = 12 * 2 * visible**2 * width
    if cross:  # per block: queries and output of the predicted tokens, keys and values of the sources, mlp
        linear += 4 * (predicted * 10 * narrow**2 + sources * 2 * width * narrow)
        attention += 4 * 2 * predicted * sources * narrow
    else:
        linear += visible * width * narrow + 4 * decoder_tokens * 12 * narrow**2
        attention += 4 * 2 * decoder_tokens**2 * narrow
    linear += predicted * narrow * 1536
    return 2 * (3 * linear + 3.5 * attention)


@pytest.mark.slow
def test_the_plain_decoder() -> None:
    counted = cost(build_model("experiment=pretrain_k400_base").train()).flops
    assert counted == pytest.approx(by_hand(1408, 160, 1568, cross=False), rel=0.01)


@pytest.mark.slow
def test_the_cross_decoder_halves_the_price() -> None:
    counted = cost(build_model("experiment=pretrain_k400_base", "decoder=cross").train()).flops
    assert counted == pytest.approx(by_hand(352, 160, 0, cross=True), rel=0.01)
    assert counted < 0.5 * by_hand(1408, 160, 1568, cross=False)


def test_what_a_clip_saves_does_not_contain_the_weights() -> None:
    counted = cost(build_model("experiment=demo_pretrain").train())
    measured = measured_by_saving("experiment=demo_pretrain")
    assert counted.activations == pytest.approx(measured, rel=0.01)


def measured_by_saving(*overrides: str) -> int:
    """Bytes that three real clips save in addition to two."""
    model = build_model(*overrides).train()
    weights = {p.untyped_storage() for p in model.parameters()}
    totals = []
    for clips in (2, 3):
        saved: dict[object, int] = {}

        def weigh(tensor: torch.Tensor, saved: dict[object, int] = saved) -> torch.Tensor:
            if tensor.untyped_storage() not in weights:
                saved[tensor.untyped_storage()] = tensor.untyped_storage().nbytes()
            return tensor

        clip = torch.randn(clips, 3, 8, 32, 32)
        mask = draw_mask(model, clips, partial(tube, ratio=0.9))
        with torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor):
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(clip, mask).loss
            totals.append(sum(saved.values()))
        del loss
    return totals[1] - totals[0]
