"""conf/data: every choice names all keys of VideoDataModule, and builds one."""

from inspect import signature
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import tubelet.config  # noqa: F401  stores the schema of the root
from tubelet.clip import ClipGrid
from tubelet.data.datamodule import VideoDataModule
from tubelet.data.transforms import Preprocess

CONF = Path(__file__).parents[2] / "conf"
LABELS = CONF.parent / "datasets" / "labels"
GRID = ClipGrid(frames=4, height=32, width=32, tubelet=2, patch=8)


def data_node(overrides):
    """Without an experiment, which may change any key."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", ["~experiment", *overrides]).data


CONFIGS = {"kinetics400": 400, "kinetics600": 600, "kinetics700": 700, "ssv2": 174, "ucf101": 101, "hmdb51": 51}


@pytest.mark.parametrize("name", [*CONFIGS, "manifest", "demo"])
def test_the_configs_list_every_key(videos, tmp_path, name):
    node = data_node([f"data={name}"])
    known = {"self", "grid", "preprocess", "masking", "labels", "seed", "accumulate", "run_dir"}
    known |= set() if name == "demo" else {"scene"}
    assert set(node) - {"_target_", "_partial_"} == set(signature(VideoDataModule.__init__).parameters) - known
    if name in CONFIGS:
        names = (LABELS / f"{name}.txt").read_text().splitlines()
        assert node.num_classes == CONFIGS[name] == len(names)
        assert node.flip == ("Pushing something from left to right" not in names)
    node.train = node.val = str(videos)
    node.batch_size, node.prepare = 3, None
    data = instantiate(node)(grid=GRID, preprocess=Preprocess(), run_dir=tmp_path)
    data.setup("fit")
    assert data.steps_per_epoch == 2
    assert data.datasets["train"].flip == (name not in ("ssv2", "demo"))


@pytest.mark.parametrize("choice", [file.stem for file in (CONF / "data" / "augment").glob("*.yaml")])
def test_augmentations_are_a_group_of_their_own(videos, tmp_path, choice):
    node = data_node(["data=manifest", f"data/augment={choice}", f"data.train={videos}", "data.repeats=1"])
    data = instantiate(node)(grid=GRID, preprocess=Preprocess(), run_dir=tmp_path)
    data.setup("fit")
    assert data.datasets["train"][0, 4].clips.shape == (1, 3, 4, 32, 32)
