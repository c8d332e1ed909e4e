"""Loaders over manifests. Every data set is a config of this one module (conf/data/*.yaml)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import lightning as L
import torch
from torch.utils.data import DataLoader

from tubelet.clip import ClipGrid
from tubelet.data.augment import Augment
from tubelet.data.bad_videos import BadVideos
from tubelet.data.dataset import Batch, EvaluationVideos, TrainingVideos, collate
from tubelet.data.device_crops import FramesBatch, UncroppedVideos, collate_frames
from tubelet.data.labels import Labels
from tubelet.data.manifest import Manifest
from tubelet.data.reader import check_reader
from tubelet.data.sampler import EvaluationBatches, TrainingBatches, per_device_batch, trainer_position
from tubelet.data.sampling import Kind, Pad, Sampling
from tubelet.data.splits import STAGES
from tubelet.data.transforms import Preprocess
from tubelet.data.unverified import unverified
from tubelet.data.worker import check_room, keep_memory
from tubelet.masking import MaskGenerator

log = logging.getLogger(__name__)


class TrainingLoader(DataLoader):
    """Counts the seconds spent waiting for its workers: `waited`."""

    waited = 0.0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            asked = perf_counter()
            batch = next(batches, None)
            self.waited += perf_counter() - asked
            if batch is None:
                return
            yield batch


class EvaluationLoader(DataLoader):
    """Passes over batches of which no video could be read, and says at the end how many videos were left out."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        batches, dataset, seen = self.batch_sampler, self.dataset, 0
        assert isinstance(batches, EvaluationBatches)
        assert isinstance(dataset, EvaluationVideos)
        for number, batch in enumerate(super().__iter__(), 1):
            seen += len(batch) // batch.views
            if number == len(self) and seen < batches.videos and dataset.bad_videos is not None:
                left_out, file = batches.videos - seen, dataset.bad_videos.file
                log.warning("%d of %d videos were left out: %s", left_out, batches.videos, file)
            if len(batch):
                yield batch


class VideoDataModule(L.LightningDataModule):
    """The keys of a data config, then, by keyword, what `run` knows.

    train, val, test   manifests; None where there is none
    batch_size         videos of one optimizer step, over all ranks and accumulated batches, before repeats
    repeats            views of every decoded video, each with its own crop, flip and mask: clips = batch_size * repeats
    num_workers        processes of each rank's training loader
    reader             auto, or one of tubelet.data.reader.READERS; a manifest's `reader` column goes before it
    num_classes        of the data set; None: not known. A manifest whose labels go beyond is refused
    sampling, stride, fps, pad    how clips are taken from videos: tubelet.data.sampling.Sampling
    flip               whether training mirrors left and right; never for classes that tell left from right (SSv2)
    augment            what else training does to each view; None: a multi-scale crop
    crops              where training crops, resizes and flips: loader or device (tubelet.data.device_crops)
    test_clips, test_crops    views of every test video: clips along its time, crops along its long side
    max_bad_share      in [0, 1]: the run fails if more of a manifest's videos cannot be read
    timeout            seconds a worker may take over one batch before the run fails; 0: no limit
    prepare            called once a node before anything is read, to make the files
    scene              of the demo: only its config reads it, for the paths and for `prepare`
    grid               the clip and its tokens
    preprocess         how the model wants its pixels
    masking            draws a clip's mask in the worker; None: batches without masks
    labels             what a batch holds of the labels: a class number, several classes, or numbers
    accumulate         batches to an optimizer step
    run_dir            where `bad_videos.csv` goes

    The trainer must not put its own sampler in place of this one: `use_distributed_sampler=False`.
    """

    def __init__(
        self,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        batch_size: int = 64,
        repeats: int = 1,
        num_workers: int = 2,
        reader: str = "auto",
        num_classes: int | None = None,
        sampling: Kind = "dense",
        stride: int = 4,
        fps: float | None = None,
        pad: Pad = "clamp",
        flip: bool = True,
        augment: Augment | None = None,
        crops: Literal["loader", "device"] = "loader",
        test_clips: int = 1,
        test_crops: int = 1,
        max_bad_share: float = 0.1,
        timeout: float = 300.0,
        prepare: Callable[[], Any] | None = None,
        scene: str | None = None,
        *,
        grid: ClipGrid,
        preprocess: Preprocess,
        masking: MaskGenerator | None = None,
        labels: Labels | None = None,
        seed: int = 0,
        accumulate: int = 1,
        run_dir: str | Path,
    ) -> None:
        super().__init__()
        check_reader(reader)
        self.paths = {split: path for split, path in (("train", train), ("val", val), ("test", test)) if path}
        if not self.paths:
            raise ValueError("data needs at least one manifest: set data.train, data.val or data.test")
        if crops == "device" and augment is not None and (more := augment.beside_crop):
            keys = ", ".join(f"data.augment.{name} ({getattr(augment, name)})" for name in more)
            raise ValueError(
                f"data.crops=device only crops, resizes and flips: turn off {keys}, or set data.crops=loader"
            )
        self.crops = crops
        self.batch_size, self.repeats, self.accumulate = batch_size, repeats, accumulate
        self.num_workers, self.timeout, self.reader = num_workers, timeout, reader
        self.sampling, self.flip, self.augment = Sampling(sampling, stride, fps, pad), flip, augment
        self.num_classes, self.test_views, self.max_bad_share = num_classes, (test_clips, test_crops), max_bad_share
        self.prepare, self.grid, self.preprocess, self.masking = prepare, grid, preprocess, masking
        self.labels = labels
        self.seed, self.run_dir = seed, Path(run_dir)
        self.datasets: dict[str, TrainingVideos | EvaluationVideos] = {}
        self._order: TrainingBatches | None = None

    def prepare_data(self) -> None:
        if self.prepare is not None:
            self.prepare()

    def setup(self, stage: str) -> None:
        """Reads the manifests of a stage. May be called before a trainer exists, and again."""
        splits = STAGES[stage]
        if splits[0] not in self.paths:
            raise ValueError(f"data.{splits[0]} is not set: it must name a manifest")
        for split in splits:
            if split in self.paths and split not in self.datasets:
                manifest = Manifest.read(self.paths[split])
                self.datasets[split] = self._dataset(split, manifest)
                if split == "train" and self._rank == 0 and (line := unverified(manifest, self.paths[split])):
                    log.info(line)

    def state_dict(self) -> dict[str, int]:
        """What the order of the samples depends on."""
        return {"videos": len(self.datasets["train"]), "batch_size": self.batch_size, "seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Raises ValueError if the rest of an epoch would not be the rest of what the checkpoint had begun."""
        if self.trainer is None or self.trainer.state.fn != "fit":
            return
        names = {"videos": "the number of videos in data.train", "batch_size": "data.batch_size", "seed": "seed"}
        for name, now in self.state_dict().items():
            if now != state_dict[name]:
                raise ValueError(
                    f"{names[name]} is {now}, but was {state_dict[name]} in the run to continue: "
                    "start a new one, with weights= from this one's checkpoint"
                )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps; what is left over of the last batch is dropped."""
        return len(self.datasets["train"]) // self.batch_size if "train" in self.datasets else 0

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        self._order = TrainingBatches(
            len(self.datasets["train"]),
            self.batch_size,
            seed=self.seed,
            position=(lambda: 0) if trainer is None else (lambda: trainer_position(trainer)),
            rank=self._rank,
            ranks=self._ranks,
            accumulate=self.accumulate,
        )
        return self._loader("train", self._order)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        return self._evaluation("val") if "val" in self.paths else []

    def test_dataloader(self) -> DataLoader:
        return self._evaluation("test")

    def _evaluation(self, split: str) -> DataLoader:
        dataset = self.datasets[split]
        assert isinstance(dataset, EvaluationVideos)
        clips = per_device_batch(self.batch_size, self._ranks, self.accumulate)
        videos = max(1, clips // dataset.views)  # a test batch holds no more clips than a training batch
        return self._loader(split, EvaluationBatches(len(dataset), videos, rank=self._rank, ranks=self._ranks))

    def _dataset(self, split: str, manifest: Manifest) -> TrainingVideos | EvaluationVideos:
        if self.num_classes is not None and manifest.num_classes > self.num_classes:
            raise ValueError(
                f"data.{split} {self.paths[split]} has label {manifest.num_classes - 1}, "
                f"but data.num_classes is {self.num_classes}"
            )
        common: dict[str, Any] = {"seed": self.seed, "masking": self.masking, "reader": self.reader}
        common["labels"] = self.labels
        if split == "train":
            bad_videos = BadVideos(self.run_dir / "bad_videos.csv", len(manifest), self.max_bad_share)
            common |= {"augment": self.augment, "flip": self.flip, "repeats": self.repeats}
            kind = UncroppedVideos if self.crops == "device" else TrainingVideos
            return kind(manifest, self.grid, self.sampling, bad_videos=bad_videos, **common)
        file = self.run_dir / f"bad_videos_{split}.csv"
        bad_videos = BadVideos(file, len(manifest), self.max_bad_share, f"left out of {split}")
        clips, crops = self.test_views if split == "test" else (1, 1)
        common |= {"preprocess": self.preprocess, "clips": clips, "crops": crops}
        return EvaluationVideos(manifest, self.grid, self.sampling, bad_videos=bad_videos, **common)

    def _loader(self, split: str, batches: TrainingBatches | EvaluationBatches) -> DataLoader:
        # torch limits each worker to one thread by itself; no sample depends on the workers' own random state
        if self.num_workers:
            check_room(self._batch_bytes(split), self.num_workers, getattr(self.trainer, "num_devices", 1))
        kind = TrainingLoader if split == "train" else EvaluationLoader
        return kind(
            self.datasets[split],
            batch_sampler=batches,
            collate_fn=collate_frames if isinstance(self.datasets[split], UncroppedVideos) else collate,
            worker_init_fn=keep_memory,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            timeout=self.timeout if self.num_workers else 0,
            persistent_workers=self.num_workers > 0,
        )

    def _batch_bytes(self, split: str) -> int:
        """Of the clips, or of the decoded frames if the manifest says their size; masks and labels are small."""
        videos = per_device_batch(self.batch_size, self._ranks, self.accumulate)
        dataset = self.datasets[split]
        if isinstance(dataset, UncroppedVideos):
            first = dataset.manifest.record(0)
            height, width = first.height or self.grid.height, first.width or self.grid.width
            return videos * 3 * self.grid.frames * height * width
        clips = max(videos, dataset.views) if isinstance(dataset, EvaluationVideos) else videos * self.repeats
        return clips * 3 * self.grid.frames * self.grid.height * self.grid.width

    def on_before_batch_transfer(self, batch: Batch | FramesBatch, dataloader_idx: int) -> Batch | FramesBatch:
        """A batch out of order would make a resumed run another run, silently: refuse it."""
        if self.trainer is not None and self.trainer.training and self._order is not None:
            position = trainer_position(self.trainer)
            expected = [index for _, index in self._order.batch(position)]
            if batch.index[:: batch.views].tolist() != expected:
                raise RuntimeError(f"the loader is out of step with the trainer at batch {position}")
        return batch

    def transfer_batch_to_device(
        self, batch: Batch | FramesBatch, device: torch.device, dataloader_idx: int
    ) -> Batch | FramesBatch:
        return batch.to(device, non_blocking=True)

    def on_after_batch_transfer(self, batch: Batch | FramesBatch, dataloader_idx: int) -> Batch:
        """uint8 travels, a quarter of the bytes; floats are made on the device: float32, also for a model in bfloat16
        (its targets are exact), and float64 for one in that.
        """
        if isinstance(batch, FramesBatch):
            batch = batch.crop((self.grid.height, self.grid.width))
            clip = self.preprocess.normalise_pixels(batch.clip)
        elif len(batch):
            clip = self.preprocess.normalise(batch.clip)
        else:
            return batch
        double = self.trainer is not None and self.trainer.precision == "64-true"
        return replace(batch, clip=clip.to(torch.float64 if double else torch.float32))

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    @property
    def _ranks(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size
