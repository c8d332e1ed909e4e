"""The check of a GPU, tried out on the CPU at tiny sizes, so that it works the first time that there is a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tubelet.bench import speeds

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import check  # noqa: E402
import hooks  # noqa: E402
import results  # noqa: E402


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(HERE / "check.sh"), *arguments],
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_everything_runs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = shell(str(out), "--device", "cpu", "--tiny", "--seconds", "1200")
    log = (out / "check.log").read_text()
    assert done.returncode == 0, done.stdout + log
    rows = json.loads((out / "check.json").read_text())["rows"]
    assert results.read(out / "check.jsonl") == rows
    assert {row["part"] for row in rows} == set(check.SHARES)
    by_name = {row["check"]: row for row in rows}
    for name in ("demo_pretrain: bf16-mixed", "demo_finetune: 32-true", "demo_pretrain: killed and continued",
                 "demo_pretrain: compiled against eager", "demo_pretrain: fsdp on one rank against eager",
                 "pretrain_base: loss is transformers'", "files to device, cross decoder"):  # fmt: skip
        assert by_name[name]["ok"], name
    needs = {row["check"] for row in rows if row["note"]} - {row["check"] for row in rows if "target" in row}
    assert all(by_name[name]["note"] == results.NEEDS_CUDA for name in needs)
    assert len(needs) == 5  # one run without host synchronisation, four graphs
    assert by_name["pretrain_base transformers"]["clips_s"] > 0
    assert (out / "check.md").read_text() in done.stdout
    assert "pretrain_base" in (out / "speed.csv").read_text()


@pytest.mark.slow
def test_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = shell()
    assert (done.returncode, done.stdout) == (2, "")
    assert "torch sees no GPU here" in done.stderr


def test_what_fails_is_a_row_and_the_next_goes_on(tmp_path: Path) -> None:
    stream = results.Results("speed", tmp_path / "rows", 100.0, "cpu", True)
    assert stream.attempt("good", lambda: 7) == 7
    assert stream.attempt("bad", lambda: [][0]) is None
    assert stream.attempt("late", lambda: 7, needs=200) is None
    assert stream.attempt("graph", lambda: 7, cuda=True) is None
    stream.add("fast", clips_s=3.0)
    rows = results.read(stream.file)
    assert [(row["check"], row["ok"], row["note"]) for row in rows] == [
        ("bad", False, "IndexError: list index out of range"),
        ("late", None, results.NO_TIME),
        ("graph", None, results.NEEDS_CUDA),
        ("fast", None, ""),
    ]


def test_half_a_line_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_text('{"part": "speed", "ok": true}\n{"part": "spe')
    assert results.read(file) == [{"part": "speed", "ok": True}]


@pytest.mark.parametrize(("code", "reason"), [("raise SystemExit(3)", "exit code 3"), ("input = 1 / 0", "exit code 1")])
def test_a_part_that_dies_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, reason: str) -> None:
    (tmp_path / "speed.py").write_text(code)
    monkeypatch.setattr(check, "HERE", tmp_path)
    given: Any = SimpleNamespace(out=tmp_path, device="cpu", tiny=True)
    check.run_part("speed", 20, given, tmp_path / "rows")
    (row,) = results.read(tmp_path / "rows")
    assert (row["part"], row["ok"]) == ("speed", False)
    assert row["note"].startswith(reason)


def test_a_part_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real.py").write_text("import time; time.sleep(100)")
    monkeypatch.setattr(check, "HERE", tmp_path)
    check.run_part("real", -14.5, SimpleNamespace(out=tmp_path, device="cpu", tiny=True), tmp_path / "rows")
    (row,) = results.read(tmp_path / "rows")
    assert row["note"] == "stopped after 0 s"


def test_tables() -> None:
    rows = [
        {"part": "correctness", "check": "a", "ok": False, "note": "why", "difference": 0.5, "limit": 1e-4},
        {"part": "speed", "check": "b", "ok": None, "note": "", "model": "m", "way": "plain", "clips_s": 12.0},
        {"part": "speed", "check": "c", "ok": None, "note": "reached", "value": 2.5, "target": 2.0},
    ]
    text = check.markdown(rows, {"gpu": "none"})
    assert "- gpu: none" in text
    assert "| a | **failed** | 0.5 | 0.0001 | why |" in text
    assert "| m | plain |  | 12 |  |  |  |  |" in text
    assert "| c | 2.5 |  | 2 |  | reached |" in text


def test_lines_for_the_table_of_speeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(way: str, clips_s: float) -> dict[str, Any]:
        return {"model": "pretrain_base", "way": way, "clips_s": clips_s, "gflop": 200.0, "batch": 64}

    timed = [row("transformers", 900.0), row("plain", 500.0), row("plain, compiled", 700.0), row("cross", 1000.0)]
    about = {"gpu": "NVIDIA H100 80GB HBM3, 85 GB, CUDA 13.0", "processor": "16 cores, x", "torch": "2.11.0"}
    check.write_speeds(tmp_path / "speeds.csv", timed, about)
    monkeypatch.setattr(speeds, "FILE", tmp_path / "speeds.csv")
    assert speeds.speeds() == [
        speeds.Speed("NVIDIA H100 80GB HBM3", name, "bf16", tflops, f"measured: {way}, 64 clips, torch 2.11.0")
        for name, tflops, way in (("pretrain_base", 140, "plain, compiled"), ("pretrain_base_cross", 200, "cross"))
    ]


def test_the_guard_is_on_between_the_first_steps_and_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    guard = hooks.NoHostSync(first=1)
    for step in range(4):
        guard.on_train_batch_start(SimpleNamespace(global_step=step, max_steps=4))
    guard.on_train_end()
    assert modes == ["default", "error", "error", "default", "default"]
