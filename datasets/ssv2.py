"""Something-Something v2: python datasets/ssv2.py RAW_DIR OUT_DIR

RAW_DIR holds what https://www.qualcomm.com/developer/software/something-something-v-2-dataset offers, unpacked:
    20bn-something-something-v2/1.webm ...                                   (or re-encoded, or a folder of frames each)
    labels/{labels,train,validation,test}.json and labels/test-answers.csv   (or something-something-v2-train.json ...)
test.csv is written if the test list and its videos are there, with labels if the answers are. Published figures are of
the validation videos.
"""

from __future__ import annotations

import csv
from pathlib import Path

from tubelet.videos.find import by_stem
from tubelet.videos.prepare import Listed, find_file, official_labels, read_json, run_script, write_data_set


def main(raw_dir: Path, out_dir: Path) -> None:
    """Manifests of Something-Something v2."""
    label_file = find_list(raw_dir, "labels")
    numbers = {name: int(number) for name, number in read_json(label_file).items()}
    labels = sorted(numbers, key=numbers.__getitem__)
    if labels != official_labels(__file__, "ssv2"):
        raise ValueError(f"{label_file}: not the official list of 174 classes")
    videos = by_stem(raw_dir)

    def listed(name: str) -> list[Listed]:
        """Entries are {"id": "78687", "template": "Holding [something]", ...}; those of the test list have only ids."""
        file = find_list(raw_dir, name)
        entries = read_json(file)
        answers = find_answers(raw_dir) if name == "test" else {}
        found = []
        for entry in entries:
            number = str(entry["id"])
            template = entry.get("template", answers.get(number))
            if template is None and name != "test":
                raise ValueError(f"{file}: video {number} has no template, which names its class")
            label = None if template is None else numbers.get(template.replace("[", "").replace("]", ""))
            if template is not None and label is None:
                raise ValueError(f"{file}: video {number} is of no known class: {template!r}")
            found.append(Listed(number, videos.get(number), label))
        return found

    splits = {"train": listed("train"), "val": listed("validation")}
    # many leave the test videos out, for they used to have no labels, and some their list
    test = listed("test") if has_list(raw_dir, "test") else []
    if any(video.file for video in test):
        splits["test"] = test
    write_data_set(raw_dir, out_dir, labels, splits, f"files such as {splits['val'][0].name}.webm")


def find_list(raw_dir: Path, name: str) -> Path:
    return find_file(raw_dir, f"{name}.json", f"something-something-v2-{name}.json")


def has_list(raw_dir: Path, name: str) -> bool:
    try:
        find_list(raw_dir, name)
    except ValueError:
        return False
    return True


def find_answers(raw_dir: Path) -> dict[str, str]:
    """id -> class, from lines of `id;class`; empty if the file is not there."""
    try:
        file = find_file(raw_dir, "test-answers.csv")
    except ValueError:
        return {}
    with open(file, newline="") as lines:
        return {row[0]: row[1] for row in csv.reader(lines, delimiter=";") if len(row) == 2}


if __name__ == "__main__":
    run_script(main)
