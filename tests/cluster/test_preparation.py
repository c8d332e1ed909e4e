"""slurm/verify.sbatch and slurm/transcode.sbatch: shards of a manifest, merged by the task that ends last."""

from pathlib import Path

from jobs import Jobs

from tubelet.data.manifest import Manifest


def listing(videos: Path, directory: Path) -> Path:
    """Six videos and one that is none."""
    (directory / "broken.mp4").write_bytes(b"no video")
    rows = ["path,label", *(f"{videos.parent / f'{i}.mp4'},{i % 3}" for i in range(6)), "broken.mp4,0"]
    path = directory / "list.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def run_array(jobs: Jobs, *arguments: str) -> None:
    array = jobs.submit("--array=0-2", *arguments)
    for task in range(3):
        jobs.job(f"{array.number}_{task}").ended()


def test_verify(jobs: Jobs, videos: Path) -> None:
    path, out = listing(videos, jobs.directory), jobs.directory / "checked" / "good.csv"
    run_array(jobs, "slurm/verify.sbatch", path.name, "checked/good.csv")
    merged = Manifest.read(out)
    assert [merged.record(i).num_frames for i in range(7)] == [40, 40, 40, 40, 40, 5, None]
    assert [merged.record(i).status == "ok" for i in range(7)] == [True] * 6 + [False]
    before = {file: file.stat().st_mtime_ns for file in out.parent.glob("good.*-of-3.csv")}
    text = out.read_text()
    out.unlink()
    run_array(jobs, "slurm/verify.sbatch", path.name, "checked/good.csv")  # what is done is not done again
    assert out.read_text() == text
    assert {file: file.stat().st_mtime_ns for file in out.parent.glob("good.*-of-3.csv")} == before


def test_transcode(jobs: Jobs, videos: Path) -> None:
    path = listing(videos, jobs.directory)
    for _ in range(2):
        run_array(jobs, "slurm/transcode.sbatch", path.name, "small", "--short-side", "32")
    merged = Manifest.read(jobs.directory / "small" / "list.csv")
    assert [merged.record(i).height for i in range(6)] == [32, 40, 32, 40, 32, 40]
    assert merged.record(6).status != "ok"
