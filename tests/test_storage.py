import random
from pathlib import Path

import pytest
import torch

from tubelet import storage


def fill(path: Path, text: str, kind: str) -> Path:
    if kind == "file":
        path.write_text(text)
    else:
        path.mkdir()
        (path / "a").write_text(text)
    return path


def read(path: Path) -> str:
    return (path / "a" if path.is_dir() else path).read_text()


@pytest.fixture(params=["file", "directory"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Killed(BaseException):
    pass


def kill_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """The `call`-th change of the file system does not come to pass."""
    count = 0

    def counted(function: object) -> object:
        def instead(*arguments: object) -> object:
            nonlocal count
            count += 1
            if count == call:
                raise Killed
            return function(*arguments)  # type: ignore[operator]

        return instead

    monkeypatch.setattr(storage.os, "replace", counted(storage.os.replace))
    monkeypatch.setattr(storage, "remove", counted(storage.remove))


@pytest.mark.parametrize("call", range(1, 5))
def test_the_old_or_the_new_is_there_whenever_it_ends(
    tmp_path: Path, kind: str, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    fill(path, "old", kind)
    new = fill(storage.part(path), "new", kind)
    with monkeypatch.context() as patch:
        kill_at(patch, call)
        try:
            storage.put(new, path)
            ended = True
        except Killed:
            ended = False
    storage.clean(tmp_path)
    assert read(path) == ("new" if ended or call > (1 if kind == "file" else 2) else "old")
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_file_does_not_replace_a_directory(tmp_path: Path) -> None:
    fill(tmp_path / "x.png", "mine", "directory")
    with pytest.raises(IsADirectoryError, match=r"x\.png"):
        storage.write_text(tmp_path / "x.png", "new")
    assert read(tmp_path / "x.png") == "mine"
    assert [each.name for each in tmp_path.iterdir()] == ["x.png"]


def test_what_was_written_is_flushed_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(storage, "flush", lambda path: seen.append(path.name))
    monkeypatch.setattr(storage.os, "replace", lambda source, target: seen.append(f"{source.name} -> {target.name}"))
    storage.write_text(tmp_path / "a.json", "{}")
    assert seen == [".a.json.part", ".a.json.part -> a.json", tmp_path.name]


def test_a_block_that_fails_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("old")

    def write_half() -> None:
        with storage.replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    with pytest.raises(FileNotFoundError), storage.replacing(path):
        pass  # nothing was written
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]
    with storage.replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]


def test_a_file_is_written_atomically_in_one_way() -> None:
    """By `storage`: no room of these has a spelling of its own."""
    library = Path(storage.__file__).parent
    files = [file for room in ("runtime", "loggers", "report", "evaluate") for file in (library / room).glob("*.py")]
    files += [library / "callbacks" / "curves.py"]
    assert [file.name for file in files if "os.replace" in file.read_text() or '.part"' in file.read_text()] == []


@pytest.fixture
def checkpoint(tmp_path: Path, kind: str) -> Path:
    """As torch saves it; the directory, as the ranks of a sharded model do."""
    path = tmp_path / "last.ckpt"
    contents = {"weights": torch.randn(300, 100), "more": [torch.ones(5), {"step": 3}]}
    if kind == "file":
        torch.save(contents, path)
        return path
    path.mkdir()
    torch.save(contents, path / "__0_0.distcp")
    (path / ".metadata").write_bytes(b"where they are")
    files = sorted(path.iterdir())
    storage.seal(path, {file.name: storage.checksum(file) for file in files})
    return path


def test_a_whole_checkpoint_has_no_damage(checkpoint: Path) -> None:
    assert storage.damage(checkpoint) is None


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_is_found(checkpoint: Path, seed: int) -> None:
    """Anywhere in the weights."""
    file = checkpoint / "__0_0.distcp" if checkpoint.is_dir() else checkpoint
    data = bytearray(file.read_bytes())
    draw = random.Random(seed)
    at = draw.randrange(len(data) - 300 * 100 * 4, len(data) - 10_000)
    data[at] ^= 1 << draw.randrange(8)
    file.write_bytes(data)
    assert "wrong checksum" in str(storage.damage(checkpoint))


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000])
def test_a_cut_file_is_found(checkpoint: Path, size: int) -> None:
    file = checkpoint / "__0_0.distcp" if checkpoint.is_dir() else checkpoint
    file.write_bytes(file.read_bytes()[:size])
    assert storage.damage(checkpoint)


def test_a_missing_part_is_found(checkpoint: Path) -> None:
    if checkpoint.is_dir():
        (checkpoint / storage.CHECKSUMS).unlink()
        assert storage.damage(checkpoint)
        (checkpoint / "__0_0.distcp").unlink()
    else:
        checkpoint.unlink()
    assert storage.damage(checkpoint)
