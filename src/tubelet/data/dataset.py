"""Record and key -> sample: decode once, then crop, augment and mask each view of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tubelet.clip import ClipGrid
from tubelet.data.augment import Augment
from tubelet.data.bad_videos import BadVideos
from tubelet.data.crops import draw
from tubelet.data.labels import Labels
from tubelet.data.manifest import Manifest, Record
from tubelet.data.randomness import generator
from tubelet.data.reader import Shrink, Video, VideoError, check_reader, frame_times, read_clip
from tubelet.data.sampler import Slot
from tubelet.data.sampling import Sampling, Times, span
from tubelet.data.transforms import Preprocess, flip
from tubelet.masking import Mask, MaskGenerator, at_epoch

_MAX_DRAWS = 100  # replacements tried for one sample before its error is final


@dataclass(frozen=True)
class Sample:
    """R views of one video: `clips` uint8 [R,C,T,H,W], `hidden` bool [R,N] or None, `label` as `Labels.of` gives it.

    Up to the device clips lie in memory as decoders write them, [R,T,H,W,C] (torch's channels_last_3d): workers never
    spend time on moving channels.
    """

    clips: Tensor
    hidden: Tensor | None
    label: Tensor
    index: int


@dataclass(frozen=True)
class Batch:
    """`clip` uint8 [B,C,T,H,W] (float32 once normalised on the device), `index` int64 [B]; `label` int64 [B], or
    float32 [B,size] for several labels or numbers (tubelet.data.labels).

    The `views` clips of a video stand side by side, B = videos * views: `x.unflatten(0, (-1, batch.views))` is
    [videos,views,...]. `index` is the line of the manifest the sampler asked for; where training had to replace an
    unreadable video, clip and label are the replacement's.
    """

    clip: Tensor
    mask: Mask | None
    label: Tensor
    index: Tensor
    views: int = 1

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return Batch(
            self.clip.to(device, non_blocking=non_blocking),
            None if self.mask is None else self.mask.to(device, non_blocking=non_blocking),
            self.label.to(device, non_blocking=non_blocking),
            self.index.to(device, non_blocking=non_blocking),
            self.views,
        )

    def pin_memory(self) -> Batch:
        mask = None if self.mask is None else self.mask.pin_memory()
        return Batch(self.clip.pin_memory(), mask, self.label.pin_memory(), self.index.pin_memory(), self.views)


def collate(read: Sequence[Sample | None]) -> Batch:
    """Samples side by side; those that evaluation leaves out (None) are missing, and an empty batch may remain."""
    samples = [sample for sample in read if sample is not None]
    if not samples:
        nothing = torch.empty(0, dtype=torch.int64)
        return Batch(torch.empty(0, dtype=torch.uint8), None, nothing, nothing)
    views = len(samples[0].clips)
    hidden = [sample.hidden for sample in samples if sample.hidden is not None]
    pixels = torch.cat([sample.clips.permute(0, 2, 3, 4, 1) for sample in samples])  # [B,T,h,w,C]
    return Batch(
        pixels.permute(0, 4, 1, 2, 3),  # [B,C,T,h,w]
        Mask.from_hidden(torch.cat(hidden)) if hidden else None,
        torch.stack([sample.label for sample in samples]).repeat_interleave(views, dim=0),
        torch.tensor([sample.index for sample in samples]).repeat_interleave(views),
        views,
    )


class _Videos(torch.utils.data.Dataset[Sample | None]):
    """What training and evaluation share: a manifest, how its files are read, and the masks."""

    def __init__(
        self,
        manifest: Manifest,
        grid: ClipGrid,
        sampling: Sampling,
        *,
        seed: int,
        masking: MaskGenerator | None = None,
        reader: str = "auto",
        bad_videos: BadVideos | None = None,
        labels: Labels | None = None,
    ) -> None:
        check_reader(reader)
        self.manifest, self.grid, self.sampling = manifest, grid, sampling
        self.seed, self.masking, self.reader, self.bad_videos = seed, masking, reader, bad_videos
        self.labels, self.size = labels or Labels(), (grid.height, grid.width)

    def __len__(self) -> int:
        return len(self.manifest)

    def _read(
        self, record: Record, choose: Callable[[int, float, Times], list[int]], shrink: Shrink | None = None
    ) -> Tensor:
        """uint8 [T,H,W,C] at the file's size, or what `shrink` makes of it: the frames chosen on seeing (frames, frames
        per second, times) of the record's segment.
        """
        if record.status not in (None, "ok"):
            raise VideoError(record.path, record.status)

        def numbers(video: Video) -> list[int]:
            whole, fps, times = record.num_frames or video.num_frames, record.fps or video.fps, None
            if self.sampling.fps is not None or record.start is not None or record.end is not None:
                times = frame_times(record.path)
            first, end = span(whole, fps, *record.segment, times)
            chosen = choose(end - first, fps, None if times is None else times[first:end])
            return [first + number for number in chosen]

        return read_clip(record.path, numbers, record.reader or self.reader, shrink)

    def _sample(self, views: list[Tensor], record: Record, epoch: int, index: int) -> Sample:
        """views: R times uint8 [T,h,w,C]"""
        clips = (torch.stack(views) if len(views) > 1 else views[0][None]).permute(0, 4, 1, 2, 3)  # -> [R,C,T,h,w]
        return Sample(clips, self._hidden(epoch, index, len(views)), self.labels.of(record), index)

    def _hidden(self, epoch: int, index: int, views: int) -> Tensor | None:
        """bool [R,N]; its own keys, so that another augmentation does not mean other masks."""
        masking = self._masking_of(epoch)
        if masking is None:
            return None
        keys = [generator(self.seed, epoch, index, "mask", view) for view in range(views)]
        return torch.stack([masking(self.grid, generator=key) for key in keys])

    def _masking_of(self, epoch: int) -> MaskGenerator | None:
        """A schedule's last masking: evaluations during a run are compared."""
        return self.masking


class TrainingVideos(_Videos):
    """`dataset[epoch, index]` is one clip of that video in `repeats` views, decoded once.

    The clip's place, and each view's crop, augmentation, flip and mask are drawn with the key (seed, epoch, index,
    view). An unreadable video is replaced by another, drawn with the key too, and noted in `bad_videos`; without it,
    VideoError. `flip` mirrors half the views.
    """

    def __init__(
        self,
        manifest: Manifest,
        grid: ClipGrid,
        sampling: Sampling,
        *,
        seed: int,
        augment: Augment | None = None,
        flip: bool = False,
        repeats: int = 1,
        masking: MaskGenerator | None = None,
        reader: str = "auto",
        bad_videos: BadVideos | None = None,
        labels: Labels | None = None,
    ) -> None:
        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {repeats}")
        super().__init__(
            manifest, grid, sampling, seed=seed, masking=masking, reader=reader, bad_videos=bad_videos, labels=labels
        )
        self.augment, self.flip, self.repeats = augment or Augment(), flip, repeats

    def __getitem__(self, slot: Slot) -> Sample:
        epoch, index = slot
        frames, record = self._frames(epoch, index)  # [T,H,W,C]
        views = [self._view(frames, generator(self.seed, epoch, index, "view", view)) for view in range(self.repeats)]
        return self._sample(views, record, epoch, index)

    def _frames(self, epoch: int, index: int) -> tuple[Tensor, Record]:
        """The clip of this slot, or of the first readable replacement."""
        record = self.manifest.record(index)
        for attempt in range(_MAX_DRAWS):
            try:
                return self.decode(record, epoch, index), record
            except VideoError as error:
                if self.bad_videos is None:
                    raise
                self.bad_videos.add(error)
                failed = error
            other = draw(len(self), generator(self.seed, epoch, index, "replacement", attempt))
            record = self.manifest.record(other)
        raise VideoError(
            failed.path, f"{failed.reason}; nor could any of {_MAX_DRAWS} videos drawn in its place be read"
        )

    def decode(self, record: Record, epoch: int, index: int) -> Tensor:
        """uint8 [T,H,W,C] at the file's size: the frames this slot takes of `record`. Raises VideoError."""

        def choose(num_frames: int, fps: float, times: Times) -> list[int]:
            start = generator(self.seed, epoch, index, "start")
            return self.sampling.draw(num_frames, fps, self.grid.frames, start, times)

        return self._read(record, choose)

    def _masking_of(self, epoch: int) -> MaskGenerator | None:
        return None if self.masking is None else at_epoch(self.masking, epoch)

    def _view(self, frames: Tensor, key: torch.Generator) -> Tensor:
        """uint8 [T,H,W,C] -> uint8 [T,h,w,C]"""
        frames = self.augment(frames, self.size, key)
        return flip(frames) if self.flip and draw(2, key) else frames


class EvaluationVideos(_Videos):
    """`dataset[epoch, index]` is that video in `clips` x `crops` views, clip after clip, decoded once.

    One clip is the middle of the video, several cover it; frames are resized as `preprocess` says and crops are taken
    along the long side. Nothing is replaced: an unreadable video is noted in `bad_videos` and left out (None); without
    `bad_videos`, VideoError. Only the masks are drawn with a key.
    """

    def __init__(
        self,
        manifest: Manifest,
        grid: ClipGrid,
        sampling: Sampling,
        *,
        seed: int,
        preprocess: Preprocess | None = None,
        clips: int = 1,
        crops: int = 1,
        masking: MaskGenerator | None = None,
        reader: str = "auto",
        bad_videos: BadVideos | None = None,
        labels: Labels | None = None,
    ) -> None:
        for name, value in (("test_clips", clips), ("test_crops", crops)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        super().__init__(
            manifest, grid, sampling, seed=seed, masking=masking, reader=reader, bad_videos=bad_videos, labels=labels
        )
        self.preprocess, self.clips, self.crops = preprocess or Preprocess(), clips, crops

    @property
    def views(self) -> int:
        return self.clips * self.crops

    def __getitem__(self, slot: Slot) -> Sample | None:
        epoch, index = slot
        record = self.manifest.record(index)
        try:
            shrink = self.preprocess.shrinker(self.size, self.crops)
            frames = self._read(record, self._choose, shrink)  # [clips*T,crops,h,w,C]
        except VideoError as error:
            if self.bad_videos is None:
                raise
            self.bad_videos.add(error)
            return None
        clips = frames.unflatten(0, (self.clips, -1))  # [clips,T,crops,h,w,C]
        views = [clip[:, crop] for clip in clips for crop in range(self.crops)]
        return self._sample(views, record, epoch, index)

    def _choose(self, num_frames: int, fps: float, times: Times) -> list[int]:
        clips = self.sampling.views(num_frames, fps, self.grid.frames, self.clips, times)
        return [number for clip in clips for number in clip]
