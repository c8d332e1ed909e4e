"""Every bad config is refused with its full key. tests/config_app is a small stand-in for train.py and conf/."""

from __future__ import annotations

import errno
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from torch._utils import ExceptionWrapper

from tubelet.config import ConfigError, check, explain
from tubelet.config.schema import SUPPLIED
from tubelet.config.values import fits
from tubelet.data.reader import read_frames
from tubelet.nodes import build, parameters_of, target_of

APP = Path(__file__).parent / "config_app"
CONF = Path(__file__).parents[1] / "conf"
Compose = Callable[..., DictConfig]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the stand-in to add files to; its working directory too."""
    directory = tmp_path / "app"
    shutil.copytree(APP, directory, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "conf" / "experiment").mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.syspath_prepend(str(APP))
    return directory


@pytest.fixture
def composed(app: Path) -> Iterator[Compose]:
    """`composed(*overrides, experiment=text of the yaml file)`."""

    def compose_with(*overrides: str, experiment: str | None = None) -> DictConfig:
        if experiment is not None:
            (app / "conf/experiment/mine.yaml").write_text(f"# @package _global_\n{experiment}\n")
            overrides = ("experiment=mine", *overrides)
        return compose("config", list(overrides))

    with initialize_config_dir(str(app / "conf"), version_base="1.3"):
        yield compose_with


def mistakes(cfg: DictConfig) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(cfg)
    return caught.value.mistakes


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("HYDRA_FULL_ERROR", None)
    command = [sys.executable, "app.py", *arguments]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120)


def test_a_good_config_passes_and_stays_as_it_is(composed: Compose) -> None:
    cfg = composed()
    before = OmegaConf.to_yaml(cfg)
    check(cfg)
    assert OmegaConf.to_yaml(cfg) == before


UNKNOWN = [
    ("data.batchsize", "data: {batchsize: 4}", "batch_size"),
    ("model.dept", "model: {dept: 3}", "depth"),
    ("optim.lrr", "optim: {lrr: 3}", "lr"),
    ("callbacks.throughput.evry", "callbacks: {throughput: {evry: 3}}", "every"),
]


@pytest.mark.parametrize(("key", "yaml", "meant"), UNKNOWN)
def test_unknown_key_in_an_experiment_file(composed: Compose, key: str, yaml: str, meant: str) -> None:
    assert mistakes(composed(experiment=yaml)) == [f"{key}: unknown key (did you mean '{meant}'?)"]


@pytest.mark.parametrize(("key", "yaml", "meant"), UNKNOWN)
def test_unknown_key_on_the_command_line(composed: Compose, key: str, yaml: str, meant: str) -> None:
    message = f"{key}: unknown key (did you mean '{meant}'?)"
    assert mistakes(composed(f"+{key}=4")) == [message]
    with pytest.raises(HydraException) as caught:
        composed(f"{key}=4")
    assert explain(caught.value) == message


def test_a_key_that_the_yaml_file_does_not_list(composed: Compose) -> None:
    with pytest.raises(HydraException) as caught:
        composed("data=files", "data.cache=/tmp")
    assert explain(caught.value) == "data.cache: not listed in the config, so a + must precede it: +data.cache=..."


def test_unknown_key_at_the_root(composed: Compose) -> None:
    message = "seeed: unknown key (did you mean 'seed'?)"
    assert mistakes(composed("+seeed=1")) == [message]
    with pytest.raises(HydraException) as caught:
        composed("seeed=1")
    assert explain(caught.value) == message
    with pytest.raises(HydraException) as caught:
        composed(experiment="seeed: 1")
    assert explain(caught.value) == f"conf/experiment/mine.yaml: {message}"
    assert mistakes(composed("+foo=1"))[0].startswith("foo: unknown key (there are: name, seed, stage, ")


@pytest.mark.parametrize("group", SUPPLIED)
def test_what_the_program_passes_itself_is_not_for_a_config_to_set(group: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", ["trainer=cpu", *(f"+{group}.{key}=1" for key in SUPPLIED[group])])
        assert set(SUPPLIED[group]) <= parameters_of(target_of(cfg[group]["_target_"])).keys()
        for key, mistake in zip(SUPPLIED[group], mistakes(cfg), strict=True):
            assert mistake.startswith(f"{group}.{key}: unknown key")
        with pytest.raises(HydraException) as caught:
            compose("config", [f"{group}.xyz=1"])
    offered = re.findall(r"\w+", str(explain(caught.value)).partition("(there ")[2])
    assert not set(SUPPLIED[group]) & set(offered)


def test_an_experiment_file_without_its_package_line_is_refused(composed: Compose, app: Path) -> None:
    (app / "conf/experiment/mine.yaml").write_text("seed: 1\n")
    with pytest.raises(HydraException) as caught:
        composed("experiment=mine")
    assert "conf/experiment/mine.yaml: the first line must be '# @package _global_'" in str(explain(caught.value))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.batch_size=lots", "data.batch_size: must be int, got 'lots'"),
        ("data.batch_size=2.5", "data.batch_size: must be int, got 2.5"),
        ("data.batch_size='8'", "data.batch_size: must be int, got '8'"),
        ("data.batch_size=true", "data.batch_size: must be int, got True"),
        ("data.batch_size=null", "data.batch_size: must be int, got None"),
        ("optim.lr=fast", "optim.lr: must be float, got 'fast'"),
        ("data.scale=[1,2,3]", "data.scale: must be tuple[float, float], got [1, 2, 3]"),
        ("method.target=pixel", "method.target: must be Literal['pixels', 'features'], got 'pixel'"),
        ("model.encoder=3", "model.encoder: must be Encoder, got 3"),
        # reported where it is written, not a second time as method.num_frames: ${encoder.num_frames}
        ("encoder.num_frames=many", "encoder.num_frames: must be int, got 'many'"),
        ("data.views=[{_target_:app.Log,evry:3}]", "data.views[0].evry: unknown key (did you mean 'every'?)"),
    ],
)
def test_wrong_type(composed: Compose, override: str, message: str) -> None:
    assert mistakes(composed(override)) == [message]


@pytest.mark.parametrize("override", ["data.cache=/tmp", "data.prepare=true", "data.views=3"])
def test_wrong_type_for_a_longer_hint(composed: Compose, override: str) -> None:
    """A str is no Path, for the constructor would be given the str. Python versions print these hints differently."""
    key = override.partition("=")[0]
    found = mistakes(composed(override))
    assert len(found) == 1
    assert found[0].startswith(f"{key}: must be ")


def test_wrong_type_at_the_root(composed: Compose) -> None:
    message = "seed: Value 'lots' of type 'str' could not be converted to Integer"
    with pytest.raises(HydraException) as caught:
        composed("seed=lots")
    assert explain(caught.value) == message
    with pytest.raises(HydraException) as caught:
        composed(experiment="seed: lots")
    assert explain(caught.value) == f"conf/experiment/mine.yaml: {message}"


@pytest.mark.parametrize("override", ["optim.lr=1", "data.scale=[0,1]", "optim.warmup=null", "trainer.devices=auto"])
def test_right_types_that_a_naive_check_refuses(composed: Compose, override: str) -> None:
    check(composed(override))


@pytest.mark.parametrize(
    ("value", "hint", "good"),
    [
        (3, float, True),
        (3.0, int, False),
        (True, float, False),
        ([[1, 2], [3, 4]], tuple[tuple[int, int], ...], True),
        (["a"], list[str], True),
        ("a", list[str], False),
        ({"a": 1}, dict[str, float], True),
        ({"_target_": "x"}, int, True),  # nodes are checked as nodes
        ([{"_target_": "x"}], list[int], True),
        ("x", Path | str, True),
        (None, int | None, True),
        ("fit", Literal["fit"], True),
        ("x", object, True),
        ({"train": "x", "val": "y"}, DictConfig, False),
    ],
)
def test_fits(value: object, hint: object, good: bool) -> None:
    assert fits(value, hint, default=...) is good


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("~encoder.width", "encoder.width: a value is missing, app.Encoder needs it"),
        ("encoder.width=???", "encoder.width: a value is missing"),
        ("~seed", "seed: a value is missing"),
        ("masking=???", "masking: a value is missing"),
        ("method._target_=app.Methd", "method._target_: cannot be used: module 'app' has no attribute 'Methd'"),
        ("method._target_=nowhere.Method", "method._target_: cannot be used: No module named 'nowhere'"),
        ("optim.lr=${encoder.widht}", "optim.lr: Interpolation key 'encoder.widht' not found"),
        ("method=null", "method: must be a node with a _target_, got None"),
        ("callbacks.throughput=3", "callbacks.throughput: must be a node with a _target_ or null, got 3"),
        ("stage=train", "stage: must be one of fit, validate, test, got 'train'"),
    ],
)
def test_missing_and_dangling(composed: Compose, override: str, message: str) -> None:
    found = mistakes(composed(override))
    assert len(found) == 1
    assert found[0].startswith(message)


def test_a_target_whose_own_imports_fail_names_the_culprit(
    composed: Compose, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (app / "broken_target.py").write_text("import no_such_library\ndef build(): ...\n")
    monkeypatch.syspath_prepend(str(app))
    cfg = composed("method._target_=broken_target.build")
    assert mistakes(cfg) == ["method._target_: cannot be used: No module named 'no_such_library'"]


def test_a_target_may_be_a_method_of_a_class(composed: Compose) -> None:
    check(composed("callbacks.throughput._target_=app.Log.often", "callbacks.throughput.every=2"))


def test_a_partial_node_may_leave_arguments_to_the_run(composed: Compose) -> None:
    assert mistakes(composed("optim._partial_=false")) == ["optim.params: a value is missing, app.Optim needs it"]


def test_a_target_with_kwargs_takes_any_key(composed: Compose) -> None:
    check(composed("+callbacks.free={_target_:app.takes_anything,a:1}"))


def test_callbacks_may_be_null_and_a_masking_where_nothing_is_hidden(composed: Compose) -> None:
    check(composed("callbacks.throughput=null", "logger=null"))
    assert mistakes(composed("masking=null")) == ["masking: a value is missing, this method hides tokens"]
    check(composed("masking=null", "method._target_=app.Labelled"))


def test_a_circle_of_interpolations_is_refused(composed: Compose) -> None:
    assert len(mistakes(composed("optim.lr=${trainer.devices}", "trainer.devices=${optim.lr}"))) == 2


def test_all_mistakes_are_listed_at_once(composed: Compose) -> None:
    cfg = composed("+foo=1", "data.batch_size=lots", experiment="data: {batchsize: 4}\noptim: {lrr: 1}")
    with pytest.raises(ConfigError, match="the config has 4 mistakes") as caught:
        check(cfg)
    keys = {line.partition(":")[0] for line in caught.value.mistakes}
    assert keys == {"foo", "data.batch_size", "data.batchsize", "optim.lrr"}
    assert all(f"\n  {line}" in str(caught.value) for line in caught.value.mistakes)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["encoder.image_size=30"], "encoder: image height 30 is not divisible by patch_size 8"),
        (["encoder.num_frames=7"], "encoder: num_frames 7 is not divisible by tubelet_size 2"),
        (
            ["~encoder.patch_size", "encoder.image_size=40"],
            "encoder: image height 40 is not divisible by patch_size 16",
        ),
        (["masking.ratio=1.5"], "masking.ratio: masking ratio must lie in (0, 1), got 1.5"),
        (["masking.ratio=0"], "masking.ratio: masking ratio must lie in (0, 1), got 0"),
        # 4 x 4 positions: 0.05 hides int(0.8) = 0 of them
        (["masking.ratio=0.05"], "masking.ratio: this ratio hides 0 of 16"),
        # 4 time steps: 0.2 hides int(0.8) = 0 of them
        (["masking._target_=tubelet.masking.frame", "masking.ratio=0.2"], "masking.ratio: this ratio hides 0 of 4"),
        (["data.batch_size=10", "trainer.devices=4"], "data.batch_size: 10 is not divisible by 4 ranks x 1 accum"),
        (
            ["data.batch_size=8", "trainer.devices=2", "trainer.num_nodes=2", "trainer.accumulate=3"],
            "data.batch_size: 8 is not divisible by 4 ranks x 3 accumulated batches",
        ),
        (["resume=nowhere/run"], "resume: no such file or directory: nowhere/run"),
    ],
)
def test_impossible_combinations(composed: Compose, overrides: list[str], message: str) -> None:
    found = mistakes(composed(*overrides))
    assert len(found) == 1
    assert found[0].startswith(message)


def test_devices_known_only_at_run_time_are_left_to_the_run(composed: Compose) -> None:
    check(composed("data.batch_size=7", "trainer.devices=auto"))


def test_missing_manifests_are_named(composed: Compose, app: Path) -> None:
    cfg = composed("data=files")
    assert mistakes(cfg) == [f"data.{s}: no such file: missing/{s}.csv" for s in ("train", "val")]
    cfg.stage = "validate"
    assert mistakes(cfg) == ["data.val: no such file: missing/val.csv"]
    assert mistakes(composed("data=files", "data.train=null", "data.val=null")) == [
        "data.train: a value is missing, stage=fit reads it"
    ]
    (app / "missing").mkdir()
    (app / "missing/val.csv").touch()
    check(cfg)


def test_explain_knows_the_error_of_a_loaders_worker() -> None:
    def raised_again(work: Callable[[], object]) -> ValueError:
        try:
            work()
        except ValueError:
            wrapped = ExceptionWrapper(where="in DataLoader worker process 1")
        with pytest.raises(ValueError) as caught:
            wrapped.reraise()
        return caught.value

    assert explain(raised_again(lambda: read_frames("none.mp4", [0]))) == "none.mp4: no such file"
    assert explain(raised_again(lambda: int("many"))) is None


def test_a_value_that_needs_quotes_of_its_own(composed: Compose) -> None:
    with pytest.raises(HydraException) as caught:
        composed("resume=runs/a/checkpoints/step=2.ckpt")
    message = str(explain(caught.value))
    assert message.startswith("resume=runs/a/checkpoints/step=2.ckpt: cannot be read")
    assert "'resume=\"VALUE\"'" in message


def test_explain_tells_a_users_mistake_from_ours(composed: Compose) -> None:
    grid = {"_target_": "tubelet.clip.ClipGrid", "frames": 7, "height": 8, "width": 8, "tubelet": 2, "patch": 4}
    with pytest.raises(ValueError) as caught:
        build({"grid": grid})
    assert explain(caught.value) == "grid: num_frames 7 is not divisible by tubelet_size 2"
    with pytest.raises(AssertionError) as ours:
        build(OmegaConf.to_container(composed("method.num_frames=101").method, resolve=True))
    assert explain(ours.value) is None
    with pytest.raises(ValueError) as foreign:
        int("many")
    assert explain(foreign.value) is None
    with pytest.raises(HydraException) as missing:
        composed("data=fils")
    assert explain(missing.value) == (
        "In 'config': Could not find 'data/fils'\n\nAvailable options in 'data':\n\tfiles\n\tprepared"
    )


# ---- the project's own conf/ ----------------------------------------------------------------------------------------

# experiments and what only they put together: tests/test_experiments.py
ELSEWHERE = (
    "masking/none",
    "callbacks/classify",
    "method/finetune",
    "method/scratch",
    "method/linear",
    "method/attentive",
    "method/attentive_vjepa2",
    "method/lora",
)
CHOICES = [
    choice
    for choice in sorted(str(path.relative_to(CONF).with_suffix("")) for path in CONF.glob("*/*.yaml"))
    if not choice.startswith("experiment/") and choice not in ELSEWHERE
]


def targets(tree: object) -> Iterator[str]:
    if isinstance(tree, dict):
        yield from [tree["_target_"]] if "_target_" in tree else []
        for child in tree.values():
            yield from targets(child)


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_passes_and_can_be_checked(choice: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [choice.replace("/", "=", 1)])
    try:
        check(cfg)
    except ConfigError as error:  # the user has yet to make or name the files of a data set
        excused = r"data\.(train|val): (no such file|a value is missing)"
        if choice == "data/demo" or not all(re.match(excused, line) for line in error.mistakes):
            raise
    for target in targets(OmegaConf.to_container(cfg, resolve=True)):
        kinds = {parameter.kind for parameter in inspect.signature(target_of(target)).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds, f"{target} takes any key, so a typo is not found: wrap it"


# ---- as a program ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.batchsize=4"], "error: data.batchsize: unknown key (did you mean 'batch_size'?)\n"),
        (["+data.batchsize=4"], "error: data.batchsize: unknown key (did you mean 'batch_size'?)\n"),
        (["-m", "masking.ratio=0.5,1.5"], "error: masking.ratio: masking ratio must lie in (0, 1), got 1.5\n"),
    ],
)
def test_a_mistake_ends_with_2_one_message_and_no_directory(app: Path, arguments: list[str], message: str) -> None:
    result = run(app, *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", message)
    assert not (app / "runs").exists()


def test_a_bug_ends_with_1_and_its_traceback(app: Path) -> None:
    result = run(app, "seed=13")
    assert result.returncode == 1
    assert result.stdout == "ran with 0.5\n"
    assert "Traceback" in result.stderr
    assert "RuntimeError: a bug of ours" in result.stderr


@pytest.mark.slow
def test_a_sweep_of_good_jobs_runs(app: Path) -> None:
    result = run(app, "-m", "masking.ratio=0.5,0.75")
    assert result.returncode == 0, result.stderr
    assert [line for line in result.stdout.splitlines() if "[HYDRA]" not in line] == ["ran with 0.5", "ran with 0.75"]


def test_a_mistake_found_by_the_run_has_one_message_too(app: Path) -> None:
    result = run(app, "seed=14")
    assert (result.returncode, result.stdout) == (2, "ran with 0.5\n")
    assert result.stderr == "error: num_frames 7 is not divisible by tubelet_size 2\n"


def test_a_sweep_says_which_job_failed_and_goes_on(app: Path) -> None:
    result = run(app, "-m", "seed=14,15")
    assert result.returncode == 2
    assert [line for line in result.stdout.splitlines() if "[HYDRA]" not in line] == ["ran with 0.5", "ran with 0.5"]
    assert result.stderr == (
        "Error executing job with overrides: ['seed=14']\nerror: num_frames 7 is not divisible by tubelet_size 2\n"
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), "runs/x: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x/last.ckpt"), "runs/x/last.ckpt: No space left"),
        (OSError(errno.EROFS, "Failed to open local file 'a.csv'"), "Failed to open local file 'a.csv'"),
        (OSError(errno.EPIPE, "Broken pipe"), None),
    ],
)
def test_what_the_disk_refuses_is_one_line(error: OSError, message: str | None) -> None:
    told = explain(error)
    assert told is None if message is None else message in str(told)
