"""Teachers: a moving average by hand, frozen ones from files and from timm, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch.nn import functional as F

from tubelet.config import ConfigError, check
from tubelet.config.compose import build_model, compose
from tubelet.data.transforms import Preprocess
from tubelet.encoders.image import ImageViT
from tubelet.encoders.vit import VideoViT
from tubelet.masking import Mask
from tubelet.models.masked import MaskedModel
from tubelet.nodes import build, path_of
from tubelet.optim.groups import parameter_groups
from tubelet.targets.features import Features
from tubelet.weights.load import load_encoder, load_model
from tubelet.weights.teachers import describe, load_teachers

SMALL: dict[str, Any] = {"image_size": 16, "num_frames": 4, "patch_size": 8, "dim": 24, "depth": 1, "num_heads": 2}
MASK = Mask(torch.tensor([[0, 1, 2, 3, 5], [0, 2, 4, 6, 7]]), torch.tensor([[4, 6, 7], [1, 3, 5]]))
CLIP = torch.randn(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(1))


def encoder(**changes: Any) -> VideoViT:
    torch.manual_seed(0)
    return VideoViT(**SMALL | changes)


def node_of(**target: Any) -> dict[str, Any]:
    return {
        "_target_": path_of(MaskedModel),
        "encoder": {"_target_": path_of(VideoViT), **SMALL},
        "target": {"_target_": path_of(Features), "_partial_": True, **target},
    }


def saved(path: Path, **changes: Any) -> tuple[str, VideoViT]:
    """A checkpoint of a masked model with other sizes and pixels, and its encoder."""
    preprocess = {"_target_": path_of(Preprocess), "mean": [0.5] * 3, "std": [0.25] * 3}
    node = {
        "_target_": path_of(MaskedModel),
        "encoder": {"_target_": path_of(VideoViT), **SMALL, "dim": 32} | changes,
        "preprocess": preprocess,
    }
    torch.manual_seed(5)
    model = build(node)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"model_config": node, "state_dict": state}, path)
    return str(path), model.encoder.eval()


def taught(*sources: str, **settings: Any) -> MaskedModel:
    node = describe(node_of(teacher=list(sources), **settings))
    model: MaskedModel = build(node)
    load_teachers(model)
    return model


def test_the_moving_average_by_hand() -> None:
    student = encoder(drop_path=0.5)
    target = Features(student, Preprocess(), momentum=(0.9, 1.0)).train()
    assert not any(part.training for part in target.teachers.modules())
    assert not any(parameter.requires_grad for parameter in target.parameters())
    truth = target(CLIP, MASK)
    tokens = F.layer_norm(student.eval()(CLIP), [24])
    assert torch.allclose(truth, torch.stack([tokens[0, MASK.hidden[0]], tokens[1, MASK.hidden[1]]]), atol=1e-6)
    assert not truth.requires_grad
    assert target.loss(truth + 0.5, truth).item() == pytest.approx(0.5, abs=1e-6)
    old = target.teachers[0].blocks[0].mlp.fc1.weight.clone()
    torch.nn.init.normal_(student.blocks[0].mlp.fc1.weight)
    new = student.blocks[0].mlp.fc1.weight.detach()
    target.after_step(student, 1, 11)  # 0.9
    target.after_step(student, 6, 11)  # 0.95
    target.after_step(student, 11, 11)  # 1: nothing moves any more
    expected = 0.95 * (0.9 * old + 0.1 * new) + 0.05 * new
    assert torch.allclose(target.teachers[0].blocks[0].mlp.fc1.weight, expected, atol=1e-6)


def test_the_average_starts_where_the_encoder_does() -> None:
    student = encoder()
    target = Features(student, Preprocess())
    for parameter in student.parameters():
        torch.nn.init.normal_(parameter)
    target.start(student)
    assert all(torch.equal(new, old) for new, old in zip(student.parameters(), target.parameters(), strict=True))


def test_teachers_are_not_trained() -> None:
    model = MaskedModel(encoder(), target=Features)
    names = {name for group in parameter_groups(model, 0.05, 0.75) for name in group["names"]}
    assert names == {name for name, _ in model.named_parameters() if not name.startswith("target.")}
    assert any(name.startswith("target.") for name in model.state_dict())


def test_features_that_are_all_alike_are_seen() -> None:
    target = Features(encoder(), Preprocess())
    various = target.baselines(target(CLIP, MASK))["mean_feature_loss"]
    alike = target.baselines(target(CLIP[:1].expand_as(CLIP) * 0, Mask(MASK.visible[:, :5], MASK.hidden)) * 0 + 1.0)
    assert various > 0.05
    assert alike["mean_feature_loss"] == 0


def test_a_frozen_teacher_sees_the_clip_at_its_size_in_its_colours(tmp_path: Path) -> None:
    """Patches of 4 instead of 8 and one frame instead of two: an image of half the size, and every second frame."""
    path, teacher = saved(tmp_path / "a.ckpt", image_size=8, patch_size=4, num_frames=2, tubelet_size=1)
    model = taught(path, normalise=False, distance="smooth_l1")
    pixels = Preprocess().denormalise(CLIP[:, :, ::2]).transpose(1, 2).flatten(0, 1)
    small = F.interpolate(pixels, (8, 8), mode="bilinear", antialias=True).unflatten(0, (2, 2)).transpose(1, 2)
    tokens = teacher((small - 0.5) / 0.25)
    truth = model.target(CLIP, MASK)
    assert truth.shape == (2, 3, 32)
    assert torch.allclose(truth, torch.stack([tokens[0, MASK.hidden[0]], tokens[1, MASK.hidden[1]]]), atol=1e-5)
    before = {name: value.clone() for name, value in model.target.state_dict().items()}
    model.target.after_step(model.encoder, 1, 2)
    model.target.start(model.encoder)
    assert all(torch.equal(value, before[name]) for name, value in model.target.state_dict().items())


def test_two_teachers_one_without_its_norm(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "a.ckpt")[0], saved(tmp_path / "b.ckpt", dim=48)[0]
    model = taught(first, second, final_norm=False, normalise=False)
    out = model(CLIP, MASK)
    assert out.target.shape == (2, 3, 80)
    own = [F.l1_loss(out.prediction[..., part], out.target[..., part]) for part in (slice(32), slice(32, 80))]
    assert out.loss.item() == pytest.approx(sum(each.item() for each in own), rel=1e-6)
    clip = (Preprocess().denormalise(CLIP) - 0.5) / 0.25
    last = load_encoder(first)(clip, return_hidden_states=True).hidden_states[-1]
    assert torch.allclose(out.target[0, :, :32], last[0, MASK.hidden[0]], atol=1e-5)


def test_a_checkpoint_needs_the_teachers_file_no_more(tmp_path: Path) -> None:
    path, _ = saved(tmp_path / "teacher.ckpt", patch_size=4, image_size=8)
    node = describe(node_of(teacher=path))
    model = build(node)
    load_teachers(model)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"model_config": node, "state_dict": state}, tmp_path / "student.ckpt")
    Path(path).unlink()
    loaded = load_model(tmp_path / "student.ckpt")
    assert torch.equal(loaded(CLIP, MASK).loss, model.eval()(CLIP, MASK).loss)
    assert loaded.target.sources == [path]  # it says where its teacher came from
    assert not any(parameter.requires_grad for parameter in loaded.target.parameters())
    assert load_encoder(tmp_path / "student.ckpt").dim == 24
    with pytest.raises(ValueError, match=r"teacher\.ckpt does not exist"):
        describe(node_of(teacher=path))


@pytest.fixture
def image_model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """timm's own weights are not fetched: `pretrained` ones are those of a seed."""
    create = timm.create_model

    def create_model(name: str, pretrained: bool = False, **settings: Any) -> Any:
        torch.manual_seed(7 if pretrained else 8)
        return create(name, embed_dim=24, depth=1, num_heads=2, img_size=32, patch_size=16, **settings)

    monkeypatch.setattr(timm, "create_model", create_model)
    return create_model("vit_tiny_patch16_224", pretrained=True, num_classes=0).eval()


def test_an_image_model_of_timm_sees_the_first_frame_of_each_tubelet(image_model: Any) -> None:
    model = taught("timm:vit_tiny_patch16_224", normalise=False)
    cfg = image_model.pretrained_cfg
    frames = Preprocess().denormalise(CLIP[:, :, ::2]).transpose(1, 2).flatten(0, 1)  # [4,3,16,16]
    frames = F.interpolate(frames, (32, 32), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    tokens = image_model.forward_features((frames - mean) / std)[:, 1:].unflatten(0, (2, 2)).flatten(1, 2)
    truth = model.target(CLIP, MASK)
    assert torch.allclose(truth, torch.stack([tokens[0, MASK.hidden[0]], tokens[1, MASK.hidden[1]]]), atol=1e-5)


def test_an_image_model_is_an_encoder_of_frames_and_cannot_be_masked(image_model: Any) -> None:
    loaded = load_encoder("timm:vit_tiny_patch16_224", image_size=32, num_frames=4)
    assert isinstance(loaded, ImageViT)
    assert loaded(torch.zeros(1, 3, 4, 32, 32)).shape == (1, 16, 24)
    with pytest.raises(ValueError, match="has no masks"):
        loaded(torch.zeros(1, 3, 4, 32, 32), MASK)
    with pytest.raises(ValueError, match="cannot be pretrained with masks"):
        loaded.check_masking(None)


@pytest.mark.parametrize("name", ["hf-hub:some/one", "vit_of_nobody", "resnet18"])
def test_what_is_no_vision_transformer_of_timm(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}'"):
        ImageViT(name)


def test_what_cannot_be(tmp_path: Path) -> None:
    path, _ = saved(tmp_path / "a.ckpt", tubelet_size=4)
    with pytest.raises(ValueError, match=r"a\.ckpt sees 4 frames per token and the encoder 2"):
        taught(path)
    with pytest.raises(ValueError, match=r"target\.momentum must be two numbers in \(0, 1\], got \[1.5, 1\]"):
        Features(encoder(), Preprocess(), momentum=[1.5, 1])
    with pytest.raises(ValueError, match=r"target\.distance must be one of l1, smooth_l1, mse, got 'l3'"):
        Features(encoder(), Preprocess(), distance="l3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be described first"):
        Features(encoder(), Preprocess(), teacher="a.ckpt")


def test_bfloat16_has_too_few_digits_for_the_average_alone() -> None:
    settings = ["target=features", "trainer=cpu", "trainer.precision=bf16-true"]
    with pytest.raises(ConfigError, match=r"trainer\.precision: the steps of the target's moving average"):
        check(compose(*settings))
    check(compose(*settings, "target.teacher=some/weights"))


def test_the_model_of_the_command_line_has_its_teacher(tmp_path: Path) -> None:
    path, teacher = saved(tmp_path / "a.ckpt", dim=32)
    model = build_model("experiment=demo_pretrain", "target=features", f"target.teacher={path}", "encoder.depth=1")
    assert torch.equal(model.target.teachers[0].patch_embed.proj.weight, teacher.patch_embed.proj.weight)
