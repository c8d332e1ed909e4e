"""What the page shows of a video: the classes over time, what a masked model reconstructs, where the model looks."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tubelet.data.reader import Video, frame_times, read_clip
from tubelet.evaluate.attention import save_attention
from tubelet.evaluate.device import device_of
from tubelet.evaluate.feature_colours import save_colours
from tubelet.evaluate.pictures import save_reconstructions
from tubelet.evaluate.reconstruction import can_reconstruct, reconstruct_file
from tubelet.masking import MaskGenerator
from tubelet.models.classifier import VideoClassifier

MOMENTS, TOP = 8, 3


@dataclass(frozen=True)
class Moment:
    """What a classifier says of one clip. start, end: its first and last frame, in seconds of the video, or None if the
    file does not say its frame rate. top: names and their scores, the largest first; of a regression all, in order.
    """

    start: float | None
    end: float | None
    top: list[tuple[str, float]]


@torch.no_grad()
def classes_over_time(model: VideoClassifier, video: str | Path, moments: int = MOMENTS) -> list[Moment]:
    """The best classes of clips at equal distances from the beginning to the end; fewer where a video is so short that
    some would be the same. Raises VideoError if the file cannot be read.
    """
    grid, preprocess = model.grid, model.preprocess
    sampling, ends = preprocess.frames(), list[tuple[float | None, float | None]]()

    def choose(opened: Video) -> list[int]:
        times = frame_times(opened.path) if sampling.fps else None
        views = sampling.views(opened.num_frames, opened.fps, grid.frames, moments, times)
        views = [view for i, view in enumerate(views) if view not in views[:i]]
        # set and not added to: another reader may be tried
        ends[:] = [(view[0] / opened.fps, view[-1] / opened.fps) if opened.fps > 0 else (None, None) for view in views]
        return [number for view in views for number in view]

    frames = read_clip(video, choose, shrink=preprocess.shrinker((grid.height, grid.width)))  # [clips*T,1,h,w,C]
    clips = frames[:, 0].unflatten(0, (-1, grid.frames)).permute(0, 4, 1, 2, 3)  # [clips,C,T,h,w]
    device, names, found = device_of(model), model.id2label or {}, []
    for clip, (start, end) in zip(clips.split(1), ends, strict=True):  # one at a time, to limit the memory
        scores = model.scores(model(preprocess.normalise(clip.to(device))))[0].cpu()
        order = scores.topk(min(TOP, len(scores))).indices if model.problem != "regression" else range(len(scores))
        found.append(Moment(start, end, [(names.get(int(i), str(int(i))), float(scores[i])) for i in order]))
    return found


def answer(model: Any, masking: MaskGenerator | None, video: Path, folder: Path) -> dict[str, Any]:
    """All of it as plain data: `moments`, whether they are `probabilities`, and `pictures`, each a title and a GIF as
    a data URL. Files are written to `folder`. Raises VideoError for a file that cannot be read.
    """
    classifier = model if isinstance(model, VideoClassifier) else None
    moments = [] if classifier is None else classes_over_time(classifier, video)
    pictures = []
    if masking is not None and can_reconstruct(model):
        result = reconstruct_file(model, video, masking)
        pictures.append(("what it sees, and what it fills in", save_reconstructions(result, folder / "r.gif")))
    pictures.append(("where it looks: attention of the last block", save_attention(model, video, folder / "a.gif")))
    pictures.append(("features as colours", save_colours(model, [video], folder / "c.gif")))
    return {
        "moments": [asdict(moment) for moment in moments],
        "probabilities": classifier is None or classifier.problem != "regression",
        "pictures": [{"title": title, "data": _data_url(path)} for title, path in pictures],
    }


def _data_url(path: Path) -> str:
    return "data:image/gif;base64," + b64encode(path.read_bytes()).decode()
