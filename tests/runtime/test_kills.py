"""A run that is killed again and again, and continued, ends as the run that was left in peace: bit for bit."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import killing

pytestmark = pytest.mark.slow
TIMES = {"clips_per_s", "data_wait", "tflops", "mfu", "seconds", "device_hours"}


@pytest.fixture
def arguments(tiny_arguments: Callable[..., list[str]], videos: Path, tmp_path: Path) -> list[str]:
    """13 videos, of which 12 make an epoch of 3 steps of 2 accumulated batches."""
    rows = ["path,label", *(f"{videos.parent / f'{i % 6}.mp4'},{i % 3}" for i in range(13))]
    (tmp_path / "many.csv").write_text("\n".join(rows) + "\n")
    return tiny_arguments(
        f"data.train={tmp_path / 'many.csv'}", "data.batch_size=4", "trainer.accumulate=2", "encoder.dim=16",
        "encoder.drop_path=0.5", "callbacks=pretrain", "callbacks.checkpoints.every_n_steps=2",
        "callbacks.checkpoints.keep_every_n_steps=5", "callbacks.checkpoints.monitor=val/loss",
        "callbacks.checkpoints.mode=min", "+callbacks.ema={_target_: tubelet.callbacks.ema.EMA, decay: 0.9}",
        "+callbacks.killer={_target_: killing.Killer}",
    )  # fmt: skip


def moments(seed: int, ranks: int, workers: int, steps: int) -> list[str]:
    """Every place once, at a random step, in the order in which a run comes by; the checkpoints lie at even steps."""
    draw = random.Random(seed)
    places = set(killing.PLACES) - ({"one_rank"} if ranks == 1 else set()) - ({"worker"} if workers == 0 else set())
    at_end_of_epoch, at_save = range(3, steps, 3), range(2, steps + 1, 2)
    drawn = []
    for place in sorted(places):
        allowed = {"validation": at_end_of_epoch, "validated": at_end_of_epoch, "epoch_end": at_end_of_epoch,
                   "epoch_start": at_end_of_epoch, "writing": at_save[1:], "between_renames": at_save[1:],
                   "saved": at_save}.get(place, range(2, steps))  # fmt: skip
        drawn.append((draw.choice(allowed), killing.PLACES.index(place), place))
    return [f"{place}:{step}" for step, _, place in sorted(drawn)]


def everything(run: Path) -> dict[str, Any]:
    """All that a run has computed, without what times it took."""
    found: dict[str, Any] = {"summary": json.loads((run / "summary.json").read_text())}
    for path in sorted((run / "checkpoints").glob("*.ckpt")):
        if path.is_dir():
            dcp_to_torch_save(path, run / "sharded.pt")
            found[path.name] = torch.load(run / "sharded.pt", weights_only=True)
            found[f"{path.name}/meta.pt"] = torch.load(path / "meta.pt", weights_only=True)
        else:
            found[path.name] = torch.load(path, weights_only=True)
    with (run / "metrics.csv").open() as file:
        found["metrics.csv"] = list(csv.DictReader(file))
    return found


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """The keys at which two trees are not equal, to the last bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [key for key in a | b if key not in TIMES]
        return [d for key in keys for d in differences(a.get(key), b.get(key), f"{path}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [d for i, pair in enumerate(zip(a, b, strict=True)) for d in differences(*pair, f"{path}/{i}")]
    same = torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
    return [] if same else [path]


def seen(folder: Path, steps: range) -> dict[int, list[int]]:
    """The videos of some optimizer steps, over all ranks and accumulated batches."""
    found: dict[int, list[int]] = {step: [] for step in steps}
    for line in (folder / "seen.txt").read_text().splitlines():
        step, *videos = map(int, line.split())
        if step in found:
            found[step] += videos
    return {step: sorted(videos) for step, videos in found.items()}


@pytest.mark.timeout(1200)
def test_other_ranks_and_workers_see_the_samples_that_remain(arguments: list[str], tmp_path: Path) -> None:
    """Killed in the middle of the second epoch, 3 steps each; trained on with other numbers."""
    kinds = {  # ranks, workers, accumulated batches
        "one": (1, 0, 2), "two": (2, 0, 2), "workers": (1, 2, 2), "all": (2, 2, 1),
    }  # fmt: skip
    jobs = {
        kind: [*arguments, "trainer.max_steps=9", "encoder.drop_path=0", f"trainer.devices={ranks}",
               f"trainer.strategy={'ddp' if ranks > 1 else 'auto'}", f"data.num_workers={workers}",
               f"trainer.accumulate={accumulate}", "+callbacks.recorder={_target_: killing.Recorder}"]
        for kind, (ranks, workers, accumulate) in kinds.items()
    }  # fmt: skip

    def go(kind: str, folder: Path, kill: str, *more: str) -> list[int | None]:
        folder.mkdir(exist_ok=True)
        return killing.Run(folder, [*jobs[kind], *more], kinds[kind][0], kill=kill).wait()

    assert go("one", tmp_path / "whole", "") == [0]
    whole = seen(tmp_path / "whole", range(9))
    for epoch in range(3):
        videos = [video for step in range(3) for video in whole[3 * epoch + step]]
        assert len(set(videos)) == len(videos) == 12
    for before, after in (("one", "two"), ("two", "one"), ("one", "workers"), ("one", "all")):
        folder = tmp_path / f"{before}_{after}"
        assert -9 in go(before, folder, "forward:4")  # its last checkpoint is that of step 4
        first = seen(folder, range(4))
        (folder / "seen.txt").unlink()
        (run,) = (folder / "runs/try").iterdir()
        assert go(after, folder, "", f"resume={run}") == [0] * kinds[after][0]
        assert {**first, **seen(folder, range(4, 9))} == whole, (before, after)
        (expected,) = (tmp_path / "whole/runs/try").iterdir()
        losses = [json.loads((path / "summary.json").read_text())["val/loss"] for path in (expected, run)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("ranks", "strategy", "workers", "steps", "again"),
    [
        (1, "auto", 0, 12, "restarted"),
        (1, "auto", 2, 14, "auto"),
        (2, "ddp", 0, 14, "auto"),
        (2, "ddp", 2, 12, "restarted"),
        (2, "fsdp", 0, 12, "auto"),
    ],
)
def test_a_killed_run_ends_as_if_nothing_had_happened(
    arguments: list[str], tmp_path: Path, ranks: int, strategy: str, workers: int, steps: int, again: str
) -> None:
    """Training ends with an epoch, or in the middle of one; a run is continued by resume=auto or as a restarted job."""
    job = [*arguments, f"trainer.devices={ranks}", f"trainer.strategy={strategy}", f"data.num_workers={workers}",
           f"trainer.max_steps={steps}", *(["callbacks.ema=null"] if strategy == "fsdp" else [])]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    undisturbed = killing.Run(whole, job, ranks)
    assert undisturbed.wait() == [0] * ranks, undisturbed.output

    planned = moments(ranks * 10 + workers, ranks, workers, steps)
    print(ranks, "ranks,", workers, "workers:", *planned)
    draw = random.Random(steps)
    environment, at_random_times = {}, 0
    for moment in [*planned, ""]:
        if again == "auto" and moment != planned[0]:
            job = [*job, "resume=auto"]
        elif moment != planned[0]:
            environment = {"TORCHELASTIC_RESTART_COUNT": "1"}
        run = killing.Run(killed, job, ranks, kill=moment, **environment, **{killing.PACE: "0.1"})
        if moment in planned[1::4] and run.kill_after(draw.uniform(1.0, 5.0)):  # or before, at any other moment
            run.wait()
            at_random_times += 1
            if moment in killing.hits(killed):  # both at once
                continue
            run = killing.Run(killed, job, ranks, kill=moment, **environment)
        codes = run.wait()
        assert None not in codes, run.output  # nothing hangs
        assert (0 in codes) == (moment == ""), (moment, run.output)
        if moment.startswith("worker"):
            assert "DataLoader worker" in run.output
            assert "is killed by signal" in run.output
    assert killing.hits(killed) == planned
    print("and", at_random_times, "times at a random moment")

    (one,), (other,) = (list((folder / "runs/try").iterdir()) for folder in (whole, killed))
    expected, found = everything(one), everything(other)
    assert len(expected["metrics.csv"]) > steps
    assert differences(expected, found) == []
