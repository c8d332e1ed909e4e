"""Manifests of several labels or numbers, and the tensors that become of them."""

from pathlib import Path

import pytest
import torch

from tubelet.data.labels import Labels, known, problem_of
from tubelet.data.manifest import Manifest, Record


def listed(folder: Path, text: str, names: str = "") -> Manifest:
    (folder / "list.csv").write_text(text)
    if names:
        (folder / "labels.txt").write_text(names)
    return Manifest.read(folder / "list.csv")


@pytest.mark.parametrize("cell", ["0;2", "0|2", "0 2", '"0,2"', '"[0, 2]"', "high jump;run", "high jump | run"])
def test_several_labels_as_people_write_them(tmp_path: Path, cell: str) -> None:
    manifest = listed(tmp_path, f"path,labels\na.mp4,{cell}\nb.mp4,[]\nc.mp4,\nd.mp4,1\n", "high jump\nwalk\nrun\n")
    assert [manifest.record(i).labels for i in range(4)] == [[0, 2], [], None, [1]]
    assert manifest.problem == "multi_label_classification"
    assert manifest.num_classes == 3
    manifest.write(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text().splitlines()[1:4] == ['"a.mp4","0;2"', '"b.mp4","[]"', '"c.mp4",']
    assert Manifest.read(tmp_path / "again.csv").table.equals(manifest.table)
    assert manifest.relabelled([2, 1, 0]).table["labels"].to_pylist() == [[2, 0], [], None, [1]]


@pytest.mark.parametrize("cell", ["0.5;-2", "0.5 -2", '"0.5, -2"', '"[0.5, -2e0]"'])
def test_numbers_as_people_write_them(tmp_path: Path, cell: str) -> None:
    manifest = listed(tmp_path, f"path,values\na.mp4,{cell}\nb.mp4,1.5;-2\n")
    assert [manifest.record(i).values for i in range(2)] == [[0.5, -2], [1.5, -2]]
    assert manifest.problem == "regression"
    assert manifest.num_values == 2
    assert manifest.value_units() == ([1, -2], [0.5, 1])  # a constant has no deviation to divide by


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.mp4,0.35\n", "line 2: .*numbers of a regression stand in a column `values`"),
        ("path,label\na.mp4,1;2\n", "line 2: .*several labels stand in a column `labels`"),
        ("path,labels\na.mp4,0;-1\n", "line 2: labels must not be negative, got -1"),
        ("path,labels\na.mp4,0;jump\n", "line 2: labels must be int64, got 'jump': number the classes"),
        ("path,labels\na.mp4,0;1000000000\n", "line 2: label 1000000000 is no class number"),
        ("path,values\na.mp4,0;nan\n", "line 2: values must be finite, got nan"),
        ("path,values\na.mp4,0;x\n", "line 2: values must be double, got 'x'"),
    ],
)
def test_bad_cells_name_their_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        listed(tmp_path, text)


def test_tensors() -> None:
    video = Record("a.mp4", 3, [0, 2], [0.5, 7])
    assert Labels().of(video).item() == 3
    several, numbers = Labels("multi_label_classification", 4), Labels("regression", 2)
    assert several.of(video).tolist() == [1, 0, 1, 0]
    assert numbers.of(video).tolist() == [0.5, 7]
    for labels in (Labels(), several, numbers):
        assert known(torch.stack([labels.of(video), labels.of(Record("b.mp4"))])).tolist() == [True, False]
    assert problem_of(None, 1) == "regression"
    with pytest.raises(ValueError, match="unknown problem_type 'ranking', expected one of single_label"):
        Labels("ranking")  # type: ignore[arg-type]


@pytest.mark.parametrize("lines", ["a.mp4 1\nb.mp4 0 2\n", "a.mp4 1 2 3\nb.mp4 0 2 1\n"])
def test_lists_without_a_header_have_one_label(tmp_path: Path, lines: str) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text(lines)
    with pytest.raises(ValueError, match=r"line \d: several labels of a video stand in the column `labels` of a CSV"):
        Manifest.read(tmp_path / "list.txt")
