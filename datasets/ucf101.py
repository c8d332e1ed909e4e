"""UCF101, an official split: python datasets/ucf101.py RAW_DIR OUT_DIR [--split 1|2|3]

RAW_DIR holds what https://www.crcv.ucf.edu/data/UCF101.php offers, unpacked:
    UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi ...       (UCF101.rar; or re-encoded, or folders of frames)
    ucfTrainTestlist/{classInd,trainlist01,testlist01,...}.txt    (UCF101TrainTestSplits-RecognitionTask.zip)
UCF101 has no validation split: val.csv and test.csv both list the official test videos, as VideoMAE does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tubelet.videos.find import by_stem
from tubelet.videos.prepare import Listed, find_file, official_labels, run_script, write_data_set


def main(
    raw_dir: Path, out_dir: Path, split: Annotated[int, typer.Option(min=1, max=3, help="official split")] = 1
) -> None:
    """Manifests of UCF101."""
    class_file = find_file(raw_dir, "classInd.txt")
    labels = [line.split()[1] for line in class_file.read_text().splitlines() if line.strip()]
    if labels != official_labels(__file__, "ucf101"):
        raise ValueError(f"{class_file}: not the official list of 101 classes")
    videos = by_stem(raw_dir)

    def listed(name: str) -> list[Listed]:
        """Lines are `Class/v_Class_g01_c01.avi`, in the training list followed by the class number from 1."""
        file = find_file(raw_dir, f"{name}list0{split}.txt")
        paths = [line.split()[0] for line in file.read_text().splitlines() if line.strip()]
        for path in paths:
            if path.partition("/")[0] not in labels:
                raise ValueError(f"{file}: {path} is of no known class")
        return [Listed(p, videos.get(Path(p).stem), labels.index(p.partition("/")[0])) for p in paths]

    test = listed("test")
    splits = {"train": listed("train"), "val": test, "test": test}
    write_data_set(raw_dir, out_dir, labels, splits, f"files such as UCF-101/{test[0].name}")


if __name__ == "__main__":
    run_script(main)
