"""Every experiment composes and passes the checker with its data at hand; slow: and runs two steps on small videos."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from tubelet import run
from tubelet.config import check
from tubelet.data.small_data import settings

CONF = Path(__file__).parents[1] / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
SHRUNK = {"dim": 48, "depth": 1, "num_heads": 3}  # the data keep their shape: 16 x 224 x 224 where it is that


def compose_experiment(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [f"experiment={name}", *overrides])


def with_videos(name: str, videos: Path, weights: Path) -> DictConfig:
    """The experiment on six videos of three classes, in batches of two."""
    files = [f"data.{split}={videos}" for split in ("train", "val", "test")]
    starts = ("finetune", "tune", "linear", "attentive", "continue", "demo")
    needs = [f"weights={weights}"] if name.startswith(starts) else []
    if name.startswith("demo_pretrain"):
        needs = []
    return compose_experiment(
        name, *files, *needs, "data.batch_size=2", "data.num_workers=0", "data.num_classes=3", "data.prepare=null",
        "logger=none", "trainer=cpu",
    )  # fmt: skip


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_composes_and_passes(name: str, videos: Path) -> None:
    cfg = with_videos(name, videos, videos)
    assert cfg.name == name
    check(cfg)
    if name.startswith("demo"):  # makes its own videos
        check(compose_experiment(name, "weights=null" if name.startswith("demo_pretrain") else "weights=some"))


PRETRAINING = [name for name in EXPERIMENTS if "pretrain" in name or name in ("demo_knn", "sweep_masking")]
LABELLED = [name for name in EXPERIMENTS if name not in PRETRAINING]


@pytest.mark.parametrize(
    "method",
    ["linear", *(pytest.param(m, marks=pytest.mark.slow) for m in ("finetune", "scratch", "lora", "attentive"))],
)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_goes_with_every_method_that_learns_labels(name: str, method: str, videos: Path) -> None:
    files = [f"data.{split}={videos}" for split in ("train", "val", "test")]
    cfg = compose_experiment(
        name, f"method={method}", *files, f"weights={videos}", "data.batch_size=2", "data.num_classes=3",
        "data.prepare=null", "trainer=cpu", "stage=fit",
    )  # fmt: skip
    check(cfg)
    assert cfg.model._target_.endswith("VideoClassifier")


CHOICES = ["target=raw_pixels", "decoder=cross", "decoder=self_attention", "encoder=vivit_demo", "masking=dual"]
NOT_WITH = {  # these set what only their own part has
    "target=raw_pixels": ("pretrain_v2", "pretrain_salt_large", "pretrain_mvd"),
    "encoder=vivit_demo": ("pretrain_v2", "pretrain_vjepa", "pretrain_salt"),
}


@pytest.mark.parametrize(
    ("name", "choice"),
    [(n, c) for n in PRETRAINING for c in CHOICES if not n.startswith(NOT_WITH.get(c, ("pretrain_v2",)))],
)
def test_every_pretraining_goes_with_every_part(name: str, choice: str, videos: Path) -> None:
    files = [f"data.{split}={videos}" for split in ("train", "val", "test")]
    cfg = compose_experiment(
        name, choice, *files, f"weights={videos}", "data.batch_size=2", "data.prepare=null", "trainer=cpu",
        *(["encoder.num_frames=16"] if choice == "masking=dual" else []),
    )  # fmt: skip
    check(cfg)


PUBLISHED = {  # experiment: videos a step, base lr, epochs, frames x stride, and what else the recipe fixes
    "pretrain_k400_base": (1024, 1.5e-4, 1600, 4, {"masking.ratio": 0.9, "optim.warmup_epochs": 40, "data.flip": True}),
    "pretrain_k400_small": (1024, 1.5e-4, 1600, 4, {"decoder.depth": 4}),
    "pretrain_k400_large": (512, 1.5e-4, 1600, 4, {"decoder.depth": 12}),
    "pretrain_k400_huge": (1024, 1.5e-4, 1600, 4, {"decoder.depth": 12}),
    "pretrain_ssv2_base": (1024, 1.5e-4, 2400, 2, {"data.flip": False, "optim.betas": [0.9, 0.95]}),
    "pretrain_ssv2_small": (2048, 1.5e-4, 2400, 2, {"data.flip": False}),
    "pretrain_ucf101_base": (192, 3e-4, 3200, 4, {"masking.ratio": 0.75, "data.flip": True}),
    "pretrain_hmdb51_base": (192, 3e-4, 4800, 2, {"masking.ratio": 0.75, "data.flip": True}),
    "pretrain_v2_base": (1024, 1e-3, 200, 4, {"data.repeats": 4, "masking.decoder_ratio": 0.5}),
    "pretrain_v2_giant": (2048, 6e-4, 300, 4, {"optim.clip_grad": 0.02, "optim.warmup_epochs": 30}),
    "pretrain_vjepa_large": (3072, 5.2083e-5, 138, 4, {"target.momentum": [0.998, 0.9996], "decoder.dim": 384}),
    "pretrain_salt_teacher_large": (3072, 5.2083e-5, 34, 4, {"target.normalise": True, "decoder.depth": 12}),
    "pretrain_salt_large": (3072, 5.2083e-5, 171, 4, {"target.distance": "l1", "decoder.dim": 384}),
    "pretrain_mvd_base": (1024, 1.5e-4, 400, 4, {"target.distance": "smooth_l1", "encoder.drop_path": 0.1}),
    "pretrain_maskfeat": (512, 8e-4, 300, 4, {"masking.ratio": 0.4, "optim.clip_grad": 0.02, "target.bins": 9}),
    "finetune_k400_base": (384, 5e-4, 75, 4, {"optim.layer_decay": 0.75, "encoder.drop_path": 0.1, "data.repeats": 2}),
    "finetune_k400_small": (384, 5e-4, 150, 4, {"method.mixup": 0.8, "method.cutmix": 1.0}),
    "finetune_k400_large": (128, 2e-3, 35, 4, {"method.label_smoothing": 0.1, "data.augment.erase": 0.25}),
    "finetune_k400_huge": (512, 1e-3, 50, 4, {"encoder.drop_path": 0.2, "model.head_dropout": 0.5}),
    "finetune_ssv2_base": (384, 5e-4, 40, 2, {"data.sampling": "segments", "data.flip": False, "data.test_clips": 2}),
    "finetune_ssv2_small": (384, 1e-3, 40, 2, {"optim.layer_decay": 0.7}),
    "finetune_ucf101_base": (128, 5e-4, 100, 4, {"optim.layer_decay": 0.7, "model.head_dropout": 0.5}),
    "finetune_hmdb51_base": (128, 1e-3, 50, 2, {"encoder.drop_path": 0.2, "data.test_clips": 10, "data.test_crops": 3}),
    "attentive_ssv2": (256, 1e-3, 20, 2, {"model.pool_depth": 4, "model.pool_heads": 16}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_is_the_published_recipe(name: str) -> None:
    batch, lr, epochs, stride, more = PUBLISHED[name]
    cfg = compose_experiment(name)
    found = (cfg.data.batch_size, cfg.optim.base_lr, cfg.trainer.max_epochs, cfg.data.stride)
    assert found == (batch, lr, epochs, stride)
    assert {key: OmegaConf.select(cfg, key) for key in more} == more
    assert (cfg.encoder.num_frames, cfg.encoder.image_size, cfg.optim.weight_decay) == (
        16, 224, {"attentive_ssv2": 0.01}.get(name, 0.04 if "vjepa" in name or "salt" in name else 0.05),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_two_steps_of_it(name: str, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = with_videos(name, videos, Path("runs") / "weights")
    shrink(cfg)
    if cfg.weights is not None:
        start = with_videos("pretrain" if cfg.encoder.image_size == 224 else "demo_pretrain", videos, videos)
        shrink(start)
        start.name, start.trainer.max_steps = "start", 1
        run.main(start)
        (cfg.weights,) = map(str, Path("runs/start").iterdir())
    if OmegaConf.select(cfg, "target.teacher") is not None and name.startswith("pretrain"):
        cfg.target.teacher = teacher(videos, cfg.target.teacher)
    metrics = run.main(cfg)
    assert "val/loss" in metrics


def teacher(videos: Path, named: str | list[str]) -> str | list[str]:
    """A run of one step of pretraining, instead of each source that is named."""
    cfg = with_videos("pretrain", videos, videos)
    shrink(cfg)
    cfg.name, cfg.trainer.max_steps = "teacher", 1
    run.main(cfg)
    (path,) = Path("runs/teacher").iterdir()
    return str(path) if isinstance(named, str) else [str(path)] * len(named)


def shrink(cfg: DictConfig) -> None:
    with open_dict(cfg):
        cfg.trainer.max_steps, cfg.trainer.precision, cfg.callbacks.progress = 2, "32-true", None
        cfg.encoder.update(SHRUNK)
        cfg.decoder.update({"dim": 48, "num_heads": 3, "depth": 1})
        if cfg.model.get("pool") == "attentive":
            cfg.model.update({"pool_heads": 3, "pool_depth": 1})


@pytest.mark.parametrize(
    ("videos_", "batch", "epochs"), [(8, 8, 200), (40, 16, 200), (500, 32, 200), (9500, 128, 41), (200000, 384, 30)]
)
def test_settings_of_small_data(videos_: int, batch: int, epochs: int) -> None:
    chosen = settings(videos_)
    assert (chosen["batch_size"], chosen["max_epochs"]) == (batch, epochs)


def test_small_data_choices_give_way_to_the_command_line(videos: Path) -> None:
    cfg = compose_experiment("finetune_small", f"data.train={videos}", "optim.base_lr=7e-4")
    assert cfg.optim.base_lr == 7e-4
    assert cfg.data.batch_size == 4  # of six videos
    assert cfg.method.mixup == 0.0
    assert (cfg.data.augment.crop.scale, cfg.data.augment.erase) == ([0.08, 1.0], 0.25)


def test_small_frames_are_not_cropped(videos: Path) -> None:
    augment = compose_experiment("finetune_small", f"data.train={videos}", "encoder=vit_demo").data.augment
    assert (augment.crop.scale, augment.rand_augment, augment.erase) == ([1.0, 1.0], None, 0.0)
    another = compose_experiment("finetune_small", f"data.train={videos}", "method=scratch", "data/augment=jitter")
    check(another)
    assert another.data.augment.crop.low == 256


@pytest.mark.parametrize(
    ("names", "flip"),
    [
        ("left right", False),
        ("TurnLeft WalkUp", False),
        ("turn_counter-clockwise still", False),
        ("spin_ccw still", False),
        ("bright copyright", True),
        ("jump run", True),
    ],
)
def test_videos_are_mirrored_only_if_their_class_stays_the_same(videos: Path, names: str, flip: bool) -> None:
    (videos.parent / "labels.txt").write_text("\n".join(["third", *names.split()]))
    assert compose_experiment("finetune_small", f"data.train={videos}").data.flip is flip
    assert compose_experiment("finetune_small", f"data.train={videos}", "data.flip=true").data.flip is True


def test_what_all_settings_depend_on_is_asked_for_once() -> None:
    with pytest.raises(ValueError) as caught:
        check(compose_experiment("finetune_small", "weights=some"))
    lines = [line for line in str(caught.value).splitlines() if "number of training videos" in line]
    assert lines == ["  data.augment.crop.scale: it depends on the number of training videos: set data.train"]


@pytest.mark.parametrize(
    ("videos_", "batch", "epochs"), [(3, 3, 1600), (480, 4, 33), (2000, 4, 20), (3000, 32, 430), (10**6, 32, 20)]
)
def test_settings_of_small_pretraining(videos_: int, batch: int, epochs: int) -> None:
    chosen = settings(videos_, "pretrain")
    assert (chosen["batch_size"], chosen["max_epochs"]) == (batch, epochs)
    assert chosen["base_lr"] * batch / 256 == pytest.approx(5e-4)
    assert 1 <= chosen["warmup_epochs"] <= epochs


def test_pretraining_needs_two_videos() -> None:
    with pytest.raises(ValueError, match="training needs at least 2 videos, got 1"):
        settings(1, "pretrain")
