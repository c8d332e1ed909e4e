"""Run the parts of the check one after the other, each within its time, and write what they found."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import platform
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from results import NO_TIME, Results, read

HERE = Path(__file__).parent
SHARES = {"correctness": 0.3, "speed": 0.42, "real": 1.0}
"""Part -> the largest share of the whole time that it may take; the last one may take all that is left."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="check.sh")
    parser.add_argument("out", type=Path, nargs="?", default=Path(os.environ.get("OUT") or "gpu-check"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the check out")
    parser.add_argument("--seconds", type=float, default=470.0, help="for everything")
    parser.add_argument("--only", choices=SHARES, help="one part, which gets all the time")
    return parser.parse_args()


def run_part(part: str, seconds: float, given: argparse.Namespace, stream: Path) -> None:
    """In a process of its own. Whatever ends it, its reason is in the stream."""
    command = [sys.executable, str(HERE / f"{part}.py"), "--file", str(stream), "--seconds", f"{seconds:.0f}"]
    command += ["--device", given.device, *(["--tiny"] if given.tiny else [])]
    environment = dict(os.environ)
    if given.tiny:
        environment["OMP_NUM_THREADS"] = "1"
    reason = ""
    with (given.out / "check.log").open("ab") as log:
        log.write(f"\n=== {part}, {seconds:.0f} s\n".encode())
        log.flush()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            if code := process.wait(seconds + 15):
                reason = f"exit code {code}: see check.log"
        except subprocess.TimeoutExpired:
            reason = f"stopped after {seconds + 15:.0f} s"
        finally:
            kill_group(process)
    if reason:
        Results(part, stream, seconds, given.device, given.tiny).add(part, False, reason)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """The part and all that it has started: loaders, compilers, runs."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def machine(device: str) -> dict[str, str]:
    """Hardware and versions."""
    found = {"processor": f"{os.cpu_count()} cores, {processor()}", "python": platform.python_version()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}"
    for package in ("torch", "lightning", "transformers", "av", "decord"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def processor() -> str:
    """The name of the processor, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(rows: list[dict[str, Any]], columns: dict[str, str]) -> list[str]:
    """Markdown of the rows that have the first column's number. columns: key -> heading."""

    def cell(value: Any) -> str:
        if value is None:
            return ""
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    lines = [f"| {' | '.join(columns.values())} |", f"|{'---|' * len(columns)}"]
    return lines + [f"| {' | '.join(cell(row.get(key)) for key in columns)} |" for row in rows]


def markdown(rows: list[dict[str, Any]], about: dict[str, str]) -> str:
    parts = {part: [row for row in rows if row["part"] == part] for part in SHARES}
    ok = {True: "ok", False: "**failed**", None: ""}
    plain = [{**row, "ok": ok[row["ok"]]} for row in parts["correctness"]]
    timed = [row for row in parts["speed"] if "clips_s" in row]
    other = [{**row, "ok": ok[row["ok"]]} for row in parts["speed"] if "clips_s" not in row]
    judged = {"check": "check", "ok": "", "difference": "difference", "limit": "limit", "note": "note"}
    fast = {"model": "model", "way": "decoder, or whose", "batch": "clips", "clips_s": "clips/s", "mfu": "MFU",
            "gb": "GB", "largest_batch": "largest batch", "spread": "spread"}  # fmt: skip
    against = {"check": "figure", "value": "value", "tflops": "TFLOP/s", "target": "target", "ok": "", "note": "note"}
    fed = {"check": "run", "clips_per_s": "clips/s", "data_wait": "data wait", "gpu_percent": "GPU busy %",
           "mfu": "MFU of the data sheet", "core_ms_per_clip": "ms of a core per clip", "workers": "workers",
           "steps": "steps", "note": "note"}  # fmt: skip
    lines = [*(f"- {name}: {value}" for name, value in about.items()), "", "### Correctness", "",
             *table(plain, judged), "", "### Speed of a training step, bf16", "",
             *table(timed, fast), "", *table(other, against), "", "### From files to the device", "",
             *table(parts["real"], fed), ""]  # fmt: skip
    return "\n".join(lines)


def write(out: Path, rows: list[dict[str, Any]], about: dict[str, str]) -> None:
    (out / "check.json").write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    (out / "check.md").write_text(markdown(rows, about))
    timed = [row for row in rows if "clips_s" in row]
    with (out / "speed.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in timed for key in row)) or ["part"])
        writer.writeheader()
        writer.writerows(timed)
    write_speeds(out / "speeds.csv", timed, about)


def write_speeds(file: Path, timed: list[dict[str, Any]], about: dict[str, str]) -> None:
    """Lines for src/tubelet/bench/speeds.csv: the fastest of our ways to train each model."""
    best: dict[str, dict[str, Any]] = {}
    for row in timed:
        kind = row["way"].split(",")[0]
        model = row["model"] if kind == "plain" else f"{row['model']}_{kind}"
        if kind != "transformers" and (model not in best or row["clips_s"] > best[model]["clips_s"]):
            best[model] = row
    hardware = about.get("gpu", about["processor"]).split(",")[0 if "gpu" in about else 1].strip()
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(("hardware", "model", "precision", "clips_s", "tflops", "source"))
        for model, row in best.items():
            source = f"measured: {row['way']}, {row['batch']} clips, torch {about['torch']}"
            tflops = row["clips_s"] * row["gflop"] / 1e3
            writer.writerow((hardware, model, "bf16", f"{row['clips_s']:.4g}", f"{tflops:.4g}", source))


def main() -> int:
    given = arguments()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("error: torch sees no GPU here; `--device cpu --tiny` tries the check out without one", file=sys.stderr)
        return 2
    given.out = given.out.absolute()
    given.out.mkdir(parents=True, exist_ok=True)
    stream = given.out / "check.jsonl"
    for old in (stream, given.out / "check.log"):
        old.unlink(missing_ok=True)
    about = machine(given.device)
    begun = perf_counter()
    for part in [given.only] if given.only else list(SHARES):
        left = given.seconds - (perf_counter() - begun)
        seconds = left - 15 if given.only or part == "real" else min(SHARES[part] * given.seconds, left - 15)
        if seconds < 20:
            Results(part, stream, seconds, given.device, given.tiny).add(part, note=NO_TIME)
        else:
            run_part(part, seconds, given, stream)
        write(given.out, read(stream), about)
    rows = read(stream)
    print(markdown(rows, about))
    failed = [row["check"] for row in rows if row["ok"] is False]
    late = sum(row["note"] == NO_TIME for row in rows)
    print(
        f"{len(rows)} results in {perf_counter() - begun:.0f} s, {late} not run for lack of time, {len(failed)} failed"
    )
    for check in failed:
        print(f"failed: {check}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
