"""The contract that every encoder keeps, masked and whole, compiled and checkpointed."""

import copy
from contextlib import contextmanager
from functools import partial

import pytest
import torch

from tubelet import masking
from tubelet.clip import ClipGrid
from tubelet.decoders.self_attention import SelfAttentionDecoder
from tubelet.encoders.base import Encoder
from tubelet.encoders.timesformer import TimeSformer
from tubelet.encoders.vit import VideoViT
from tubelet.encoders.vivit import FactorisedViViT, ViViT
from tubelet.layers.block import DropPath
from tubelet.layers.stack import blocks_of
from tubelet.layers.switches import switch
from tubelet.masking import Mask
from tubelet.models.masked import MaskedModel

SMALL = {"image_size": 32, "num_frames": 4, "patch_size": 8, "dim": 24, "depth": 2, "num_heads": 2}
ENCODERS = {
    "vit": lambda **kw: VideoViT(**SMALL | kw),
    "vit learned": lambda **kw: VideoViT(**SMALL | {"position": "learned"} | kw),
    "vit v2": lambda **kw: VideoViT(**SMALL | {"cosine_attention": True, "layer_scale": 0.1} | kw),
    "vivit": lambda **kw: ViViT(**SMALL | kw),
    "vivit factorised": lambda **kw: FactorisedViViT(**SMALL | {"temporal_depth": 2} | kw),
    "timesformer": lambda **kw: TimeSformer(**SMALL | kw),
    "timesformer joint": lambda **kw: TimeSformer(**SMALL | {"attention_type": "joint_space_time"} | kw),
    "timesformer space": lambda **kw: TimeSformer(**SMALL | {"attention_type": "space_only"} | kw),
}
FACTORISED = ["vivit factorised", "timesformer", "timesformer space"]


@pytest.fixture(params=ENCODERS)
def make(request):
    torch.manual_seed(0)
    return ENCODERS[request.param]


def tube_mask(grid, ratio=0.75, batch=2):
    generator = torch.Generator().manual_seed(0)
    return Mask.from_hidden(torch.stack([masking.tube(grid, ratio, generator) for _ in range(batch)]))


def a_clip(encoder, batch=2):
    grid = encoder.grid
    shape = (batch, encoder.in_channels, grid.frames, grid.height, grid.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_tokens(make):
    encoder = make()
    prefix, mask = encoder.num_prefix_tokens, tube_mask(encoder.grid)
    assert encoder(a_clip(encoder)).shape == (2, prefix + encoder.grid.N, 24)
    out = encoder(a_clip(encoder), mask, return_hidden_states=True, return_attentions=True)
    assert out.tokens.shape == (2, prefix + mask.visible.shape[1], 24)
    assert len(out.hidden_states) == len(encoder.blocks) + (2 if isinstance(encoder, FactorisedViViT) else 1)
    assert len(out.attentions) == len(encoder.blocks)
    assert all(torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5) for weights in out.attentions)
    assert torch.allclose(out.tokens, encoder(a_clip(encoder), mask), atol=1e-5)  # the fused kernel computes the same


def test_masked_is_the_same_as_a_clip_of_the_visible_part_alone(make):
    """Only the top row of patches is visible: the same as an encoder of a clip that is one patch high."""
    encoder = make().eval()
    strip = make(image_size=(8, 32)).eval()
    grid, state = encoder.grid, dict(encoder.state_dict())
    top = torch.zeros(grid.t, grid.h, grid.w, dtype=torch.bool)
    top[:, 0] = True
    table, prefix = state["positions"], encoder.num_prefix_tokens
    rows = top[0].flatten() if table.shape[1] == prefix + grid.h * grid.w else top.flatten()
    state["positions"] = torch.cat([table[:, :prefix], table[:, prefix:][:, rows]], dim=1)
    strip.load_state_dict(state)
    clip = a_clip(encoder)
    mask = Mask.from_hidden(~top.flatten()[None].expand(2, -1))
    assert torch.allclose(encoder(clip, mask), strip(clip[..., :8, :]), atol=1e-5)


def test_masked_autoencoder_trains_every_parameter(make):
    encoder = make()
    mae = MaskedModel(encoder, partial(SelfAttentionDecoder, dim=16, depth=1, num_heads=2))
    loss = mae(a_clip(encoder), tube_mask(encoder.grid)).loss
    loss.backward()
    assert torch.isfinite(loss)
    silent = [name for name, p in mae.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


def mae_of(encoder, checkpointing=False):
    """A masked model in training, and its input."""
    mae = MaskedModel(encoder, partial(SelfAttentionDecoder, dim=16, depth=1, num_heads=2))
    switch_all(mae, checkpointing, False)
    return mae, a_clip(encoder), tube_mask(encoder.grid)


def switch_all(mae, checkpointing, compiled):
    for block in blocks_of(mae):
        switch(block, checkpointing, compiled)


def gradients(mae, clip, mask):
    torch.manual_seed(3)  # of what is dropped
    mae.zero_grad()
    mae(clip, mask).loss.backward()
    return {name: p.grad.clone() for name, p in mae.named_parameters()}


def test_checkpointing_changes_nothing(make):
    mae, clip, mask = mae_of(make(drop_path=0.5, dropout=0.1, attention_dropout=0.1))
    expected = gradients(mae, clip, mask)
    switch_all(mae, True, False)
    with saved_bytes() as saved:
        found = gradients(mae, clip, mask)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    switch_all(mae, False, False)
    with saved_bytes() as saved_without:
        gradients(mae, clip, mask)
    assert saved[0] < 0.7 * saved_without[0]


@contextmanager
def saved_bytes():
    """What autograd keeps from forward to backward."""
    total = [0]

    def pack(tensor):
        total[0] += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total


@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_graph(make, checkpointing):
    mae, clip, mask = mae_of(make(drop_path=0.1), checkpointing)
    mae.train(checkpointing)
    compiled = torch.compile(mae, fullgraph=True, backend="eager")
    loss = compiled(clip, mask).loss
    loss.backward()
    if not checkpointing:  # drop path draws when training
        assert torch.allclose(loss, mae(clip, mask).loss, atol=1e-6)
    torch._dynamo.reset()


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0, float("nan")])
def test_a_drop_path_that_is_no_rate(rate: float) -> None:
    with pytest.raises(ValueError, match=rf"drop_path must lie in \[0, 1\), got {rate}"):
        ENCODERS["vit"](drop_path=rate)


def test_drop_path_drops_whole_branches_and_keeps_the_mean():
    torch.manual_seed(0)
    dropped = DropPath(0.25).train()(torch.ones(4000, 2, 3))
    assert dropped.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert torch.equal(dropped, dropped[:, :1, :1].expand_as(dropped))
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(DropPath(0.25).eval()(dropped), dropped)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["vit", "vivit factorised", "timesformer"])
def test_compiled_blocks_compute_the_same_without_a_graph_break(name):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    mae, clip, mask = mae_of(ENCODERS[name](depth=3, drop_path=0.3))
    names, expected = list(mae.state_dict()), gradients(mae, clip, mask)
    switch_all(mae, False, True)
    found = gradients(mae, clip, mask)
    switch_all(mae, True, True)
    again = gradients(mae, clip, mask)
    counters = torch._dynamo.utils.counters
    assert not counters["graph_break"]
    # one of the first block, which drops nothing, one of the others, one of the decoder's; and of ViViT's second part
    assert counters["stats"]["unique_graphs"] == 3 + (name == "vivit factorised")
    assert all(torch.allclose(found[key], expected[key], rtol=1e-4, atol=1e-6) for key in expected)
    assert all(torch.allclose(again[key], found[key], rtol=1e-4, atol=1e-6) for key in expected)
    assert list(mae.state_dict()) == names


@pytest.mark.parametrize("name", FACTORISED)
@pytest.mark.parametrize("kind", [masking.random, masking.frame])
def test_masks_that_are_no_rectangle_are_refused_with_the_reason(name, kind):
    encoder = ENCODERS[name]()
    hidden = kind(encoder.grid, 0.5, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="attends over space and time in turn"):
        encoder(a_clip(encoder, 1), Mask.from_hidden(hidden[None]))

    def generate(grid, generator):
        return kind(grid, 0.5, generator)

    with pytest.raises(ValueError, match=f"{type(encoder).__name__} attends over space and time in turn"):
        encoder.check_masking(generate)
    ENCODERS["vit"]().check_masking(generate)


def test_a_clip_of_another_size_is_refused(make):
    with pytest.raises(ValueError, match=r"expected a clip \[B,C,4,32,32\], got \[2, 3, 4, 32, 40\]"):
        make()(torch.zeros(2, 3, 4, 32, 40))


def test_unknown_attention_type():
    with pytest.raises(ValueError, match="unknown attention_type 'axial'"):
        TimeSformer(**SMALL, attention_type="axial")


def test_divided_block_by_hand():
    """Written out with loops over places and frames, from the equations of the paper."""
    torch.manual_seed(0)
    encoder = TimeSformer(**SMALL | {"depth": 1}).eval()
    block, t, places = encoder.blocks[0], 4, 16
    x = torch.randn(1, 1 + t * places, 24)
    patches = x[0, 1:].view(t, places, 24).clone()
    for p in range(places):
        attended, _ = block.temporal_attn(block.temporal_norm(patches[:, p])[None])
        patches[:, p] += block.temporal_proj(attended)[0]
    cls, copies = x[0, 0].clone(), []
    for f in range(t):
        frame = torch.cat([x[0, :1], patches[f]])[None]
        attended, _ = block.attn(block.norm1(frame))
        copies.append(attended[0, 0])
        patches[f] += attended[0, 1:]
    y = torch.cat([(cls + torch.stack(copies).mean(0))[None], patches.flatten(0, 1)])
    y = y + block.mlp(block.norm2(y))
    assert torch.allclose(block(x)[0][0], y, atol=1e-5)


def test_a_copy_of_a_switched_block_computes_with_its_own_weights(make):
    mae, clip, mask = mae_of(make(), checkpointing=True)
    twin = copy.deepcopy(mae)
    expected = twin(clip, mask).loss
    with torch.no_grad():
        for parameter in mae.parameters():
            parameter.zero_()
    assert torch.equal(twin(clip, mask).loss, expected)


def test_what_an_encoder_lacks_is_said_when_its_class_is_defined():
    with pytest.raises(TypeError, match=r"Half must define layers\(\)"):

        class Half(Encoder):
            def forward(self, clip, mask=None, return_hidden_states=False, return_attentions=False):
                return clip


def test_what_an_encoder_lacks_is_said_when_a_model_is_built_of_it():
    class Unfinished(Encoder):
        def layers(self):
            return [self.first, self.second]

        def forward(self, clip, mask=None, return_hidden_states=False, return_attentions=False):
            return clip

    with pytest.raises(ValueError, match="Unfinished must set grid, dim, in_channels, norm"):
        MaskedModel(Unfinished())
    encoder = Unfinished()
    encoder.grid, encoder.dim, encoder.in_channels, encoder.norm = ClipGrid(2, 8, 8, 2, 8), 4, 3, torch.nn.Identity()
    encoder.first = encoder.second = torch.nn.Identity()
    with pytest.raises(ValueError, match="it lists 2"):
        MaskedModel(encoder)


def test_two_linear_layers_in_a_row_are_one_product():
    torch.manual_seed(0)
    first, last = TimeSformer(**SMALL | {"dropout": 0.0, "drop_path": 0.5}).blocks
    tracks = torch.randn(16, 4, SMALL["dim"])
    assert torch.allclose(first.over_time(tracks, many=True), first.over_time(tracks, many=False), atol=1e-6)
    torch.manual_seed(0)
    dropped = last.over_time(tracks, many=True)  # drop path stands between the two
    torch.manual_seed(0)
    assert torch.equal(dropped, last.over_time(tracks, many=False))
