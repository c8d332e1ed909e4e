"""The cross-attention decoder: what it predicts, what it looks at, and one block by hand."""

from functools import partial

import pytest
import torch

from tubelet.decoders.cross_attention import CrossAttentionDecoder, CrossBlock
from tubelet.encoders.vit import VideoViT
from tubelet.encoders.vivit import FactorisedViViT
from tubelet.masking import Mask, tube
from tubelet.models.masked import MaskedModel

SIZES = {"image_size": 32, "num_frames": 4, "patch_size": 8, "dim": 24, "depth": 2, "num_heads": 2}


def model(**decoder) -> MaskedModel:
    torch.manual_seed(0)
    return MaskedModel(VideoViT(**SIZES), partial(CrossAttentionDecoder, dim=16, depth=2, num_heads=2, **decoder))


def inputs(grid, clips: int = 3) -> tuple[torch.Tensor, Mask]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.stack([tube(grid, 0.75, generator) for _ in range(clips)])
    return torch.randn(clips, 3, grid.frames, grid.height, grid.width, generator=generator), Mask.from_hidden(hidden)


def test_a_training_step_predicts_a_share_of_the_hidden_tokens_and_an_evaluation_all() -> None:
    mae = model(predict=0.25)
    clip, mask = inputs(mae.grid)
    assert mae.train()(clip, mask).prediction.shape[1] == mask.hidden.shape[1] // 4
    assert mae.eval()(clip, mask).prediction.shape[1] == mask.hidden.shape[1]


def test_the_chosen_tokens_are_hidden_ones_in_order_and_all_equally_likely() -> None:
    mae = model(predict=0.25).train()
    _, mask = inputs(mae.grid, clips=1)
    many = Mask(mask.visible.expand(4000, -1), mask.hidden.expand(4000, -1))
    chosen = mae.decoder.choose(many).hidden
    assert (chosen[:, 1:] > chosen[:, :-1]).all()
    counts = torch.bincount(chosen.flatten(), minlength=mae.grid.N)
    assert set(counts.nonzero().flatten().tolist()) == set(mask.hidden[0].tolist())
    expected = chosen.numel() / mask.hidden.shape[1]
    chi_square = float(((counts[mask.hidden[0]] - expected) ** 2 / expected).sum())
    assert chi_square < 50  # 23 degrees of freedom: p of about 0.001


def test_predictions_do_not_depend_on_what_else_is_predicted() -> None:
    mae = model().eval()
    clip, mask = inputs(mae.grid)
    every = mae(clip, mask).prediction
    few = mae(clip, Mask(mask.visible, mask.hidden[:, ::3])).prediction
    assert torch.allclose(few, every[:, ::3], atol=1e-6)


def test_one_block_by_hand() -> None:
    torch.manual_seed(0)
    block = CrossBlock(4, 6, 1, 2.0, "gelu", 1e-6)
    x, y, places = torch.randn(1, 2, 4), torch.randn(1, 3, 6), torch.randn(1, 3, 8)
    q = block.q(block.norm1(x))
    k, v = (block.kv(y) + places).chunk(2, dim=-1)
    weights = torch.softmax(q @ k.transpose(1, 2) / 2, dim=-1)  # width 4: scale 1/2
    attended = x + block.proj(weights @ v)
    assert torch.allclose(block(x, y, places), attended + block.mlp(block.norm2(attended)), atol=1e-6)


def test_a_key_has_the_position_of_its_token() -> None:
    """So the order of the tokens means nothing, but which place each of them comes from does."""
    decoder = model().decoder.eval()
    tokens = torch.randn(1, 2, decoder.blocks[0].kv.in_features)
    hidden = torch.tensor([[5, 6]])
    first, second = (Mask(torch.tensor([places]), hidden) for places in ([0, 3], [3, 0]))
    assert torch.allclose(decoder(tokens, first), decoder(tokens.flip(1), second), atol=1e-6)
    assert not torch.allclose(decoder(tokens, first), decoder(tokens, second), atol=1e-4)


def test_under_autocast() -> None:
    mae = model().train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = mae(*inputs(mae.grid)).loss
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in mae.decoder.parameters())


def test_maps_mix_every_state_of_the_encoder() -> None:
    mae = model(maps=True).train()
    clip, mask = inputs(mae.grid)
    mae(clip, mask).loss.backward()
    assert mae.decoder.mix.weight.shape == (2, 4)  # blocks of the decoder, states of the encoder
    assert (mae.decoder.mix.weight.grad != 0).all()
    with pytest.raises(ValueError, match=r"FactorisedViViT does not give: set decoder\.maps=false"):
        MaskedModel(FactorisedViViT(**SIZES), partial(CrossAttentionDecoder, maps=True))


def test_bad_shares_and_heads_are_refused() -> None:
    with pytest.raises(ValueError, match=r"decoder\.predict must lie in \(0, 1\], got 1\.5"):
        model(predict=1.5)
    with pytest.raises(ValueError, match="16 is not divisible by num_heads 3"):
        MaskedModel(VideoViT(**SIZES), partial(CrossAttentionDecoder, dim=16, num_heads=3))
