"""Every file of conf/{encoder,decoder,target,masking,method,model} keeps the contract: it composes, trains two steps
with a finite loss and a gradient for every parameter, is saved, loaded and continued, and all that comes after
pretraining works with it. A file is tested by existing.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from tubelet import load_model, run
from tubelet.config.compose import build_model, compose
from tubelet.encoders.base import Encoder
from tubelet.evaluate.attention import save_attention
from tubelet.evaluate.feature_colours import save_colours
from tubelet.evaluate.features import extract_features, read_features
from tubelet.evaluate.pictures import save_reconstructions
from tubelet.evaluate.reconstruction import can_reconstruct, reconstruct_file
from tubelet.masking import Mask
from tubelet.nodes import build
from tubelet.weights.load import load_encoder, load_masking
from tubelet.weights.save import convert

CONF = Path(__file__).parents[2] / "conf"


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


Train = Callable[..., tuple[Path, dict[str, float]]]
DECODERS, TARGETS = choices("decoder"), choices("target")
MASKINGS = [name for name in choices("masking") if name != "none"]
LABELLED = [name for name in choices("method") if name != "mae"]


def of_each_class(group: str) -> list[str]:
    """The first file of each class: sisters differ in size alone."""
    classes = {compose(f"{group}={name}")[group]["_target_"]: name for name in reversed(choices(group))}
    return sorted(classes.values())


def shrunk(*overrides: str) -> list[str]:
    """The same classes at a size for tests: two by two patches, four time steps."""
    cfg = compose(*overrides)
    patch, tubelet = cfg.encoder.patch_size, cfg.encoder.get("tubelet_size", 1)
    small = [
        f"encoder.image_size={2 * patch}", f"encoder.num_frames={4 * tubelet}", "encoder.dim=48", "encoder.depth=1",
        "encoder.num_heads=3", "masking.ratio=0.5",
    ]  # fmt: skip
    small += [f"encoder.{key}=1" for key in ("temporal_depth",) if key in cfg.encoder]
    small += [f"decoder.{key}=1" for key in ("depth",) if key in cfg.decoder]
    small += ["decoder.dim=48", "decoder.num_heads=3"] if "num_heads" in cfg.decoder else []
    small += ["model.pool_heads=3", "model.pool_depth=1"] if "pool_heads" in cfg.model else []
    return [*overrides, *small]


@pytest.fixture
def trained(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Run on six small videos of three classes; the run directory and its numbers."""
    monkeypatch.chdir(tmp_path)
    files = [f"data.{split}={videos}" for split in ("train", "val")]
    common = [
        "experiment=demo_pretrain", "data=manifest", "data.batch_size=2", "data.repeats=1", "data.num_workers=0",
        "data.stride=1", "trainer=cpu", "trainer.precision=32-true", "trainer.val_every_n_epochs=1", "logger=none",
        "callbacks.progress=null", "callbacks.loss_curve=null", "optim.warmup_epochs=0",
        "trainer.log_every_n_steps=1",
    ]  # fmt: skip

    def train(name: str, *overrides: str, steps: int) -> tuple[Path, dict[str, float]]:
        arguments = shrunk(*common, *files, f"name={name}", *overrides)
        metrics = run.main(compose(*arguments, f"trainer.max_steps={steps}"))
        return sorted((tmp_path / "runs" / name).iterdir())[-1], metrics

    return train


def check_pretraining(train: Train, videos: Path, *overrides: str) -> None:
    """Pretrain, load, convert, continue; then features, attention, pictures, kNN, fine-tuning and probing."""
    pretrained, metrics = train("pretrained", *overrides, steps=2)
    assert all(torch.tensor(list(metrics.values())).isfinite())
    assert "val/knn_top1" in metrics
    model, encoder = load_model(pretrained), load_encoder(pretrained)
    assert isinstance(encoder, Encoder)
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, model.encoder.state_dict()[name]), name
    convert(pretrained, "converted")
    assert all(torch.equal(v, model.state_dict()[name]) for name, v in load_model("converted").state_dict().items())
    features, _, paths = read_features(extract_features(encoder, videos, Path("f.safetensors"), num_workers=0))
    assert features.shape == (len(paths), encoder.dim)
    assert features.isfinite().all()
    video = videos.parent / "0.mp4"
    assert save_attention(encoder, video, "attention.gif").exists()
    assert save_colours(encoder, [video], "colours.gif").exists()
    drawn = list((pretrained / "reconstructions").glob("*.png"))
    assert bool(drawn) == can_reconstruct(model)
    if can_reconstruct(model):
        picture = reconstruct_file(model, video, load_masking(pretrained))
        assert save_reconstructions(picture, "picture.png").exists()
    _, continued = train("pretrained", *overrides, f"resume={pretrained}", steps=3)
    assert continued["train/loss"] != metrics["train/loss"]
    for method in ("finetune", "linear"):
        tuned, scores = train(method, *overrides, f"method={method}", f"weights={pretrained}", steps=1)
        assert 0 <= scores["val/top1"] <= 1
        classifier, encoder = load_model(tuned), load_encoder(tuned)
        assert classifier.num_classes == 3
        clip = torch.randn(1, 3, encoder.grid.frames, encoder.grid.height, encoder.grid.width)
        assert torch.equal(encoder(clip), classifier.encoder(clip))


FIRST = {group: of_each_class(group) for group in ("encoder", "decoder", "target")}


def sisters_slow(group: str) -> list[Any]:
    """Every file of a group; CI alone runs those that only change the sizes of another."""
    return [pytest.param(name, marks=() if name in FIRST[group] else pytest.mark.slow) for name in choices(group)]


@pytest.mark.parametrize("encoder", sisters_slow("encoder"))
def test_every_encoder(encoder: str, trained: Train, videos: Path) -> None:
    check_pretraining(trained, videos, f"encoder={encoder}")


@pytest.mark.parametrize(
    "decoder", [pytest.param(n, marks=() if n == "cross_demo" else pytest.mark.slow) for n in choices("decoder")]
)
def test_every_decoder(decoder: str, trained: Train, videos: Path) -> None:
    check_pretraining(trained, videos, f"decoder={decoder}")


QUICK = ("features",)  # it holds weights; pixels are the target of every other test here


@pytest.mark.parametrize("target", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in TARGETS])
def test_every_target(target: str, trained: Train, videos: Path) -> None:
    check_pretraining(trained, videos, f"target={target}")


@pytest.mark.parametrize("masking", [pytest.param(n, marks=() if n == "dual" else pytest.mark.slow) for n in MASKINGS])
def test_every_masking(masking: str, trained: Train, videos: Path) -> None:
    check_pretraining(trained, videos, f"masking={masking}")


@pytest.mark.slow
def test_the_maps_of_the_cross_decoder(trained: Train, videos: Path) -> None:
    check_pretraining(trained, videos, "decoder=cross_demo", "decoder.maps=true")


@pytest.mark.parametrize(
    "method", [pytest.param(n, marks=pytest.mark.slow if "attentive" in n else ()) for n in LABELLED]
)
def test_every_method_that_learns_labels(method: str, trained: Train, videos: Path) -> None:
    pretrained, _ = trained("pretrained", steps=1)
    settings = () if method == "scratch" else (f"weights={pretrained}",)
    first, scores = trained("labelled", f"method={method}", *settings, steps=2)
    assert 0 <= scores["val/top1"] <= 1
    assert load_model(first).num_classes == 3
    _, continued = trained("labelled", f"method={method}", *settings, f"resume={first}", steps=3)
    assert continued["train/loss"] != scores["train/loss"]


@pytest.mark.parametrize("model", choices("model"))
def test_every_model_is_built(model: str) -> None:
    built = build_model(*shrunk("experiment=demo_pretrain", f"model={model}"), "data.num_classes=3")
    assert set(built.task_parts) >= {name for name, _ in built.named_children()} - {"encoder"}


def is_quick(encoder: str, decoder: str, target: str, masking: str) -> bool:
    """CI alone runs all combinations: the first of each class with `pixels`, and each other target once, are enough."""
    if decoder not in FIRST["decoder"] or target not in FIRST["target"]:
        return False
    return target == "pixels" or (encoder, decoder, masking) == (FIRST["encoder"][0], FIRST["decoder"][0], "tube")


COMBINATIONS = [
    pytest.param(*names, marks=() if is_quick(*names) else pytest.mark.slow)
    for names in product(FIRST["encoder"], DECODERS, TARGETS, ["tube", "dual"])
]


@pytest.mark.parametrize(("encoder", "decoder", "target", "masking"), COMBINATIONS)
def test_every_combination_trains_every_parameter(encoder: str, decoder: str, target: str, masking: str) -> None:
    names = [f"encoder={encoder}", f"decoder={decoder}", f"target={target}", f"masking={masking}"]
    cfg: Any = OmegaConf.to_container(compose(*shrunk("experiment=demo_pretrain", *names)), resolve=True)
    torch.manual_seed(0)
    model = build(cfg["model"])
    grid, generator = model.grid, torch.Generator().manual_seed(0)
    generate = build(cfg["masking"])
    if masking == "dual" and model.decoder.share < 1:
        with pytest.raises(ValueError, match="dual masking already chooses"):
            model.check_masking(generate)
        return
    mask = Mask.from_hidden(torch.stack([generate(grid, generator=generator) for _ in range(2)]))
    clip = torch.randn(2, 3, grid.frames, grid.height, grid.width, generator=generator)
    output = model.train()(clip, mask)
    output.loss.backward()
    assert output.loss.isfinite()
    assert output.prediction.shape == output.target.shape
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    silent = [name for name, p in trained.items() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


def test_a_model_that_the_method_cannot_train_is_refused(trained: Train, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Pretraining trains a MaskedModel, the model is a VideoClassifier"):
        trained("odd", "model=classifier", steps=1)
