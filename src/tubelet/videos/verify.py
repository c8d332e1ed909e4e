"""`tubelet verify`: decode every video once before training does, and write down what came of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tubelet.data.manifest import LABEL_COLUMNS, SEGMENT_COLUMNS, Manifest
from tubelet.data.reader import VideoError, open_video, read_frames, why_not
from tubelet.data.reader.kind import look_at
from tubelet.data.reader.pyav import PyavVideo
from tubelet.data.sampling import span
from tubelet.data.worker import cores
from tubelet.videos.journal import Journal, progress_bar
from tubelet.videos.processes import Killed, Report, heartbeat, run_jobs
from tubelet.videos.shards import copy_labels, take_shard

SAMPLES = 8  # frames by which a reader is compared with sequential decoding, besides the last
TOLERANCE = 4, 0.1  # largest and mean difference, of 255: decoders of MPEG-4 part 2 round differently, others do not
TOO_SHORT = 0.9  # a file with less than this share of the frames it promises is worth a line


@dataclass(frozen=True)
class Job:
    """A video, and the readers that have hung or crashed on it."""

    path: str
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """The columns that `verify` fills, and a remark for the terminal."""

    status: str
    num_frames: int | None = None
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    reader: str | None = None
    remark: str | None = None


def verify(
    manifest: str | Path, out: str | Path, workers: int | None = None, limit: float = 60.0, shard: str | None = None
) -> int:
    """Writes `manifest`, or its shard "i/n", to `out` with the columns filled; returns how many videos cannot be used,
    having printed a line for each.

    `workers` processes (default: one for each core) decode side by side. One that gets no new frame for `limit` seconds
    is killed: another reader gets its chance. Interrupted, it goes on where it was, by the file
    `out`.partial. A directory of images is a video; it has no `fps` and needs no `reader`.
    """
    listed = Manifest.read(manifest)
    if shard is not None:
        listed = take_shard(listed, shard)
    target = Path(out).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_labels([listed.root], target.parent)
    journal = Journal(target.with_name(f"{target.name}.partial"))
    paths = [listed.record(i).path for i in range(len(listed))]
    findings = {path: Finding(**done) for path in dict.fromkeys(paths) if (done := journal.get(path))}
    for path, finding in findings.items():
        _print(path, finding)
    with progress_bar() as bar:
        task = bar.add_task("verify", total=len(set(paths)), completed=len(findings))
        jobs = [Job(path) for path in dict.fromkeys(paths) if path not in findings]
        for path, finding in examine_all(jobs, workers or cores(), limit):
            findings[path] = finding
            journal.add(path, asdict(finding))
            _print(path, finding)
            bar.advance(task)
    kept = ("path", *LABEL_COLUMNS.values(), *SEGMENT_COLUMNS)
    columns = {name: listed.table[name].to_pylist() for name in kept}
    for name in ("num_frames", "fps", "height", "width", "status", "reader"):
        columns[name] = [getattr(findings[path], name) for path in paths]
    outside = _mark_segments_outside(columns, paths)
    Manifest.from_columns(listed.root, columns).write(target)
    journal.file.unlink(missing_ok=True)
    return _summarise(findings, target) + outside


def _mark_segments_outside(columns: dict[str, list[Any]], paths: list[str]) -> int:
    """Lines whose segment lies outside their video get a status that says so. Returns how many."""
    count = 0
    for i, path in enumerate(paths):
        segment = [columns[name][i] for name in SEGMENT_COLUMNS]
        if columns["status"][i] == "ok" and any(value is not None for value in segment) and columns["fps"][i]:
            try:
                span(columns["num_frames"][i], columns["fps"][i], *segment)
            except ValueError as error:
                columns["status"][i] = str(error)
                print(f"{path}: {error}", flush=True)
                count += 1
    return count


def examine_all(jobs: list[Job], workers: int, limit: float) -> Iterator[tuple[str, Finding]]:
    """(path, finding) as they come. A reader that has to be killed is left out in the next round."""
    while jobs:
        again = []
        for job, result in run_jobs(examine, jobs, workers, limit):
            if not isinstance(result, Killed):
                yield job.path, result
            elif result.stage:
                again.append(replace(job, skip=(*job.skip, result.stage)))
            else:
                yield job.path, Finding(result.reason)
        jobs = again


def examine(job: Job, report: Report) -> Finding:
    """Decode everything from the start, then let the readers show which of them gives the same frames."""
    try:
        if os.path.isdir(job.path):
            return _examine_images(job.path)
        finding, sample, right = _decode(job.path, heartbeat(report, ""))
    except VideoError as error:
        return Finding(" ".join(error.reason.split()))
    for name in right:
        if name not in job.skip and why_not(name) is None:
            report(name)
            if name == "pyav" or _agrees(job.path, name, sample, report):
                return replace(finding, reader=name)
    raise AssertionError("pyav comes last and agrees with itself")


def _decode(path: str, progress: Callable[[], object]) -> tuple[Finding, dict[int, np.ndarray], tuple[str, ...]]:
    """What sequential decoding finds, a sample of its frames by number, and the readers that may be right, the quickest
    first. An error ends the video where it occurs.

    A sample does not clear decord and torchcodec: they must also be right on files of this kind. Of a damaged file only
    PyAV is right: what decord makes of it differs from one opening to the next (seen: other pixels, frames or an
    error). Raises VideoError if there is not one frame.
    """
    draw = np.random.default_rng(0)
    kept: dict[int, tuple[int, np.ndarray]] = {}  # a reservoir: every frame has the same chance to be in the end
    number, frame, remark, corrupt = -1, None, None, False
    sizes: set[tuple[int, int]] = set()
    with open_video(path, "pyav") as video:
        assert isinstance(video, PyavVideo)
        video.progress = progress
        kind = look_at(video)
        try:
            for number, frame in enumerate(video.decoded()):
                sizes.add((frame.height, frame.width))
                corrupt |= frame.is_corrupt
                slot = number if number < SAMPLES else int(draw.integers(number + 1))
                if slot < SAMPLES:
                    kept[slot] = number, video.picture(frame)
        except VideoError as error:
            if frame is None:
                raise
            remark = f"only the first {number + 1} frames can be decoded: {error.reason}"
        if frame is None:
            raise VideoError(path, "not one frame can be decoded")
        if len(sizes) > 1:
            raise VideoError(path, f"its frames change size: {sorted(sizes)} (height, width)")
        if number + 1 < TOO_SHORT * kind.promised:
            remark = remark or f"promises {kind.promised} frames, {number + 1} can be decoded"
        last = video.picture(frame)
        height, width = last.shape[:2]
        finding = Finding("ok", number + 1, video.fps or None, height, width, remark=remark)
        right = ("pyav",) if corrupt or remark else tuple(dict.fromkeys((*kind.readers[:-1], "pyav_seek", "pyav")))
        return finding, {number: last} | dict(kept.values()), right


def _agrees(path: str, reader: str, sample: dict[int, np.ndarray], report: Report) -> bool:
    """As training reads: each frame with a fresh start, then with others before it."""
    numbers = sorted(sample)
    try:
        for part in (*([number] for number in numbers), numbers):
            report(reader)
            for number, frame in zip(part, read_frames(path, part, reader), strict=True):
                if not _same(frame.numpy(), sample[number]):
                    return False
    except VideoError:
        return False
    return True


def _same(image: np.ndarray, other: np.ndarray) -> bool:
    if image.shape != other.shape:
        return False
    difference = np.abs(image.astype(np.int16) - other)
    return bool(difference.max() <= TOLERANCE[0] and difference.mean() <= TOLERANCE[1])


def _examine_images(path: str) -> Finding:
    with open_video(path) as video:
        sizes = {tuple(video.frames([number]).shape[1:3]) for number in range(video.num_frames)}
        if len(sizes) > 1:
            raise VideoError(path, f"its images differ in size: {sorted(sizes)} (height, width)")
        ((height, width),) = sizes
        return Finding("ok", video.num_frames, height=height, width=width)


def _print(path: str, finding: Finding) -> None:
    if finding.status != "ok":
        print(f"{path}: {finding.status}", flush=True)
    elif finding.remark:
        print(f"{path}: {finding.remark}; usable up to there", flush=True)


def _summarise(findings: dict[str, Finding], out: Path) -> int:
    good = [finding for finding in findings.values() if finding.status == "ok"]
    readers = Counter(finding.reader or "images" for finding in good)
    shares = ", ".join(f"{name} {count}" for name, count in readers.most_common())
    bad = len(findings) - len(good)
    print(f"{out}: {len(good)} of {len(findings)} videos are usable ({shares or 'none'}), {bad} are not")
    return bad
