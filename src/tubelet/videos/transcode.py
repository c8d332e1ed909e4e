"""`tubelet transcode`: every video once more, made for training. That matters more than the choice of a decoder."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tubelet.data.manifest import LABEL_COLUMNS, SEGMENT_COLUMNS, Manifest, Record
from tubelet.data.worker import cores
from tubelet.storage import replacing
from tubelet.videos.encode import Clip, Encoded, Encoding, Settings, clip_time, encode, partial_file
from tubelet.videos.journal import Journal, progress_bar
from tubelet.videos.processes import Killed, run_jobs
from tubelet.videos.shards import copy_labels, take_shard

FILLED = ("num_frames", "fps", "height", "width", "status", "reader")
LONGEST_NAME = 255  # bytes, of a file on any usual disk
TIMED = 8  # videos whose reading is timed before and after


def transcode(
    manifest: str | Path,
    directory: str | Path,
    settings: Settings,
    workers: int | None = None,
    limit: float = 600.0,
    shard: str | None = None,
) -> int:
    """Writes an .mp4 of every video of `manifest`, or of its shard "i/n", under `directory`, and there a manifest of
    the same name with all columns filled (of a shard: NAME.i-of-n.csv, for `merge`), line by line as in the original.
    Returns how many videos could not be transcoded, having printed a line for each; their lines say why.

    Originals are only read. Every new file appears when it is complete; interrupted, or run again with another manifest
    of the same videos, only what is missing is made. A process that makes no progress for `limit` seconds
    is killed.
    """
    whole, target = Manifest.read(manifest), Path(directory).absolute()
    listed = whole if shard is None else take_shard(whole, shard)
    # where each goes must not depend on the shard
    names = _new_names([os.path.normpath(whole.record(i).path) for i in range(len(whole))], target)
    target.mkdir(parents=True, exist_ok=True)
    _same_settings(target, settings)
    copy_labels([whole.root], target)
    mark = f".{shard.replace('/', '-of-')}" if shard else ""
    out = target / f"{Path(manifest).stem}{mark}.csv"
    journal = Journal(target / f".{out.stem}.journal", sorted(target.glob(".*.journal")))
    records = [listed.record(i) for i in range(len(listed))]
    for record in records:
        _new_segment(record, settings)  # before any work
    paths = [os.path.normpath(record.path) for record in records]
    originals: dict[str, Record] = {}
    for path, record in zip(paths, records, strict=True):  # of several segments one may lie outside its good video
        if path not in originals or record.status == "ok":
            originals[path] = record
    results, jobs = _sort(originals, names, target, settings, journal)
    _print_problems(results)
    with progress_bar() as bar:
        task = bar.add_task("transcode", total=len(results) + len(jobs), completed=len(results))
        for job, result in _encode_all(jobs, workers or cores(), limit):
            if result.status == "ok":
                # in this order: a file in its place is always one that the journal knows
                journal.add(job.source, {"target": names[job.source], "result": asdict(result)})
                os.replace(partial_file(job.target), job.target)
            results[job.source] = result
            _print_problems({job.source: result})
            bar.advance(task)
    columns = {name: [getattr(results[path], name) for path in paths] for name in FILLED}
    for i, record in enumerate(records):
        if columns["status"][i] == "ok" and record.status is not None:
            columns["status"][i] = record.status
    segments = [_new_segment(record, settings) for record in records]
    columns |= {name: [getattr(record, name) for record in records] for name in LABEL_COLUMNS.values()}
    columns |= {name: [segment[i] for segment in segments] for i, name in enumerate(SEGMENT_COLUMNS)}
    Manifest.from_columns(target, {"path": [names[path] for path in paths], **columns}).write(out)
    _summarise(results, originals, names, out, limit)
    return sum(result.status != "ok" for result in results.values())


def _new_segment(record: Record, settings: Settings) -> tuple[float | None, ...]:
    """The values of SEGMENT_COLUMNS in the new file. Another frame rate numbers frames anew, so they become seconds."""
    frames = [record.start_frame, record.end_frame]
    if settings.fps is None or frames == [None, None]:
        return record.segment
    fps = record.fps
    if not fps:
        raise ValueError(
            f"{record.path}: another --fps needs the frame rate of this segment given in frames: run `tubelet verify`"
        )
    return (*(None if frame is None else frame / fps for frame in frames), None, None)


def _new_names(paths: list[str], directory: Path) -> dict[str, str]:
    """Where each video goes within `directory`, as it lies below the directory they have in common, but .mp4."""
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    real = os.path.realpath(directory)
    for path in paths:
        if os.path.commonpath([real, os.path.realpath(path)]) == real:
            raise ValueError(f"{directory} holds originals ({path}): choose another directory")
    unique = list(dict.fromkeys(paths))
    names = {path: os.path.splitext(os.path.relpath(path, root))[0] + ".mp4" for path in unique}
    # a.avi and a.webm both keep their extension; a.avi beside a.avi.mp4, and names too long for a disk, get a number
    for rename in (
        lambda path: os.path.relpath(path, root) + ".mp4",
        lambda path: _numbered(os.path.relpath(path, root)),
    ):
        times = Counter(names.values())
        names = {path: rename(path) if times[name] > 1 else name for path, name in names.items()}
    return {path: name if _fits(name) else _numbered(os.path.relpath(path, root)) for path, name in names.items()}


def _fits(name: str) -> bool:
    return len(os.fsencode(os.path.basename(name))) <= LONGEST_NAME


def _numbered(name: str) -> str:
    """NAME without its extension, cut short if need be, and a number that follows from the whole of it."""
    number = hashlib.blake2b(os.fsencode(name), digest_size=6).hexdigest()
    folder, stem = os.path.split(os.path.splitext(name)[0])
    short = os.fsencode(stem)[: LONGEST_NAME - len(number) - 5].decode(errors="ignore")
    return os.path.join(folder, f"{short}.{number}.mp4")


def _sort(
    records: dict[str, Record], names: dict[str, str], directory: Path, settings: Settings, journal: Journal
) -> tuple[dict[str, Encoded], list[Encoding]]:
    """What is known already, and what is to be done. Raises ValueError if a file is in the way."""
    results, jobs = {}, []
    made = {values["target"]: path for path, values in journal.all().items()}
    for path, record in records.items():
        target, done = directory / names[path], journal.get(path)
        if target.exists() and made.get(names[path]) != path:
            raise ValueError(f"{target} exists and was not made from {path}: choose another directory")
        if record.status not in (None, "ok"):
            results[path] = Encoded(str(record.status))
        elif done is not None and target.exists():
            results[path] = Encoded(**done["result"])
        else:
            jobs.append(Encoding(path, str(target), settings, record.fps))
    return results, jobs


def _same_settings(directory: Path, settings: Settings) -> None:
    """One directory, one way of encoding."""
    file, text = directory / "transcode.json", json.dumps(asdict(settings)) + "\n"
    if file.exists():
        if (there := file.read_text(encoding="utf-8")) != text:
            raise ValueError(f"{file} says {there.strip()}, asked for {text.strip()}: choose another directory")
        return
    with replacing(file, concurrent=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _encode_all(jobs: list[Encoding], workers: int, limit: float) -> Iterator[tuple[Encoding, Encoded]]:
    for job, result in run_jobs(encode, jobs, workers, limit):
        encoded = Encoded(result.reason) if isinstance(result, Killed) else result
        if encoded.status != "ok":
            Path(partial_file(job.target)).unlink(missing_ok=True)
        yield job, encoded


def _print_problems(results: dict[str, Encoded]) -> None:
    for path, result in results.items():
        if result.status != "ok":
            print(f"{path}: {result.status}", flush=True)


def _summarise(
    results: dict[str, Encoded], records: dict[str, Record], names: dict[str, str], out: Path, limit: float
) -> None:
    good = {path: result for path, result in results.items() if result.status == "ok"}
    before, after = (sum(getattr(result, f"bytes_{when}") for result in good.values()) for when in ("before", "after"))
    print(f"{out}: {len(good)} of {len(results)} videos, {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after")
    old, new = [], []
    for path in list(good)[:: -(-len(good) // TIMED)] if good else ():
        result = good[path]
        old.append(Clip(path, result.source_frames, 4, records[path].reader))
        stride = max(1, round(4 * (result.fps or 0.0) / result.source_fps))
        new.append(Clip(str(out.parent / names[path]), result.num_frames or 1, stride, result.reader))
    times = [
        [ms for _, ms in run_jobs(clip_time, clips, 1, limit) if not isinstance(ms, Killed)] for clips in (old, new)
    ]
    if all(times):
        medians = " ms before, ".join(f"{statistics.median(ms):.1f}" for ms in times)
        print(f"a clip of 16 frames over the same time: {medians} ms after (one core, median of {len(new)} videos)")
