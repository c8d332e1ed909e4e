import csv
import logging
from functools import partial

import pytest
import torch

from small_videos import video_frame
from tubelet.clip import ClipGrid
from tubelet.data.augment import Augment
from tubelet.data.bad_videos import BadVideos
from tubelet.data.crops import MultiScale
from tubelet.data.dataset import EvaluationVideos, TrainingVideos, collate
from tubelet.data.manifest import Manifest
from tubelet.data.reader import VideoError, read_clip
from tubelet.data.sampling import Sampling
from tubelet.data.transforms import Preprocess
from tubelet.masking import tube

GRID = ClipGrid(frames=4, height=32, width=32, tubelet=2, patch=8)  # 2 x 4 x 4 tokens
MASKING = partial(tube, ratio=0.75)


def training(manifest, **settings):
    defaults = {"seed": 0, "flip": True, "masking": MASKING}
    return TrainingVideos(manifest, GRID, Sampling(stride=2), **defaults | settings)


def evaluation(manifest, stride=2, **settings):
    return EvaluationVideos(manifest, GRID, Sampling(stride=stride), **{"seed": 0} | settings)


def test_an_evaluation_clip_by_hand(videos):
    sample = evaluation(Manifest.read(videos), stride=4, preprocess=Preprocess(short_side=48))[0, 4]
    # 48 x 64, label 1; 4 frames spaced 4 span 13 of 40: from (40 - 13) // 2 = 13 on
    assert (sample.label, sample.index, sample.hidden) == (1, 4, None)
    assert sample.clips.dtype == torch.uint8
    assert sample.clips.shape == (1, 3, 4, 32, 32)
    for t, number in enumerate((13, 17, 21, 25)):
        crop = torch.from_numpy(video_frame(4, number)[8:40, 16:48]).permute(2, 0, 1)  # the centre of 48 x 64
        inner = (slice(None), slice(0, 20), slice(0, 12))  # away from the edges that compression blurs
        assert (sample.clips[0, :, t][inner].int() - crop[inner].int()).abs().max() <= 2


def test_views_of_a_test_video_by_hand(videos):
    dataset = evaluation(
        Manifest.read(videos), stride=4, clips=2, crops=3, preprocess=Preprocess(short_side=48), masking=MASKING
    )
    sample = dataset[0, 4]  # 48 x 64: margins 16 and 32; starts 0 and 40 - 13 = 27
    assert sample.clips.shape == (6, 3, 4, 32, 32)
    assert sample.hidden.shape == (6, 32)
    for view, clip in enumerate(sample.clips):
        first, left = (0, 27)[view // 3], (0, 16, 32)[view % 3]
        for t in range(4):
            crop = torch.from_numpy(video_frame(4, first + 4 * t)[8:40, left : left + 32]).permute(2, 0, 1)
            difference = (clip[:, t].int() - crop.int()).abs()[:, :20]
            assert difference[:, :, [0, 8, 24, 31]].max() <= 2  # columns away from the edge that compression blurs
    one = evaluation(Manifest.read(videos), stride=4, preprocess=Preprocess(short_side=48))[0, 4]
    assert one.clips.shape == (1, 3, 4, 32, 32)


def test_a_test_video_is_decoded_once(videos, monkeypatch):
    asked = []
    monkeypatch.setattr("tubelet.data.dataset.read_clip", lambda *a, **k: asked.append(a) or read_clip(*a, **k))
    assert len(evaluation(Manifest.read(videos), clips=5, crops=3)[0, 0].clips) == 15
    assert len(asked) == 1


def test_every_slot_and_view_has_its_own_key(videos):
    views = training(Manifest.read(videos), repeats=3)[0, 1]
    assert views.clips.shape == (3, 3, 4, 32, 32)
    again = training(Manifest.read(videos), repeats=2)[0, 1]
    assert torch.equal(views.clips[:2], again.clips)
    assert torch.equal(views.hidden[:2], again.hidden)
    others = [training(Manifest.read(videos))[1, 1], training(Manifest.read(videos), seed=1)[0, 1]]
    for clip, hidden in [(views.clips[1], views.hidden[1]), *((other.clips[0], other.hidden[0]) for other in others)]:
        assert not torch.equal(views.clips[0], clip)
        assert not torch.equal(views.hidden[0], hidden)
    plain = training(Manifest.read(videos), augment=Augment(MultiScale((1.0,))), flip=False)
    assert torch.equal(plain[0, 1].hidden[0], views.hidden[0])  # another augmentation, the same masks


def test_flips_half_the_views_or_none(videos):
    whole = Augment(MultiScale((1.0,)))

    def right_is_lighter(sample):
        return [bool(clip[0, 0, 4, 28] > clip[0, 0, 4, 4]) for clip in sample.clips]

    assert all(right_is_lighter(training(Manifest.read(videos), augment=whole, flip=False, repeats=30)[0, 4]))
    assert 6 < sum(right_is_lighter(training(Manifest.read(videos), augment=whole, repeats=30)[0, 4])) < 24


def test_repeats_decode_once(videos, monkeypatch):
    asked = []
    monkeypatch.setattr("tubelet.data.dataset.read_clip", lambda *a, **k: asked.append(a) or read_clip(*a, **k))
    assert len(training(Manifest.read(videos), repeats=4)[0, 0].clips) == 4
    assert len(asked) == 1


def test_no_global_generator_is_touched(videos):
    state = torch.get_rng_state()
    training(Manifest.read(videos), repeats=2)[0, 0]
    assert torch.equal(torch.get_rng_state(), state)


def test_collate(videos):
    dataset = training(Manifest.read(videos), repeats=2)
    batch = collate([dataset[0, 3], dataset[0, 5]])
    assert (len(batch), batch.views) == (4, 2)
    assert batch.clip.shape == (4, 3, 4, 32, 32)
    assert batch.mask.visible.shape == (4, 8)
    assert batch.mask.hidden.shape == (4, 24)
    assert batch.label.tolist() == [0, 0, 2, 2]
    assert batch.index.tolist() == [3, 3, 5, 5]
    moved = batch.to("meta", non_blocking=True)
    assert moved.clip.is_meta
    assert moved.views == 2
    assert moved.mask.hidden.is_meta


def broken(videos, tmp_path, bad=(2,)):
    """The six videos, some of them text."""
    paths = [str(videos.parent / f"{i}.mp4") for i in range(6)]
    for i in bad:
        (tmp_path / f"bad{i}.mp4").write_text("not a video")
        paths[i] = str(tmp_path / f"bad{i}.mp4")
    return Manifest.from_columns(tmp_path, {"path": paths, "label": [0, 1, 2, 3, 4, 5]})


def test_training_replaces_an_unreadable_video_and_names_it_once(videos, tmp_path, caplog):
    manifest = broken(videos, tmp_path)
    file = tmp_path / "run" / "bad_videos.csv"
    dataset = training(manifest, bad_videos=BadVideos(file, 6, 0.2))
    with caplog.at_level(logging.WARNING):
        samples = [dataset[epoch, 2] for epoch in range(8)]
    assert all(sample.label != 2 and sample.index == 2 for sample in samples)
    assert len({sample.label for sample in samples}) > 1  # each epoch draws another replacement
    assert sum("bad2.mp4" in record.message for record in caplog.records) == 1
    other_worker = training(manifest, bad_videos=BadVideos(file, 6, 0.2))
    assert torch.equal(other_worker[0, 2].clips, samples[0].clips)
    rows = list(csv.reader(file.open()))
    assert rows[0] == ["path", "reason"]
    assert [row[0] for row in rows[1:]] == [str(tmp_path / "bad2.mp4")]


def test_too_many_bad_videos_end_training(videos, tmp_path):
    manifest = broken(videos, tmp_path, bad=(2, 3))
    file = tmp_path / "bad_videos.csv"
    training(manifest, bad_videos=BadVideos(file, 6, 0.2))[0, 2]  # 1 of 6 is still allowed
    other_worker = training(manifest, bad_videos=BadVideos(file, 6, 0.2))
    with pytest.raises(VideoError, match=r"bad3.mp4: .*2 of 6 videos cannot be read.*share of 0.2"):
        other_worker[0, 3]


def test_evaluation_refuses_to_substitute(videos, tmp_path, caplog):
    manifest = broken(videos, tmp_path)
    with pytest.raises(VideoError, match=r"bad2\.mp4"):
        evaluation(manifest)[0, 2]
    bad_videos = BadVideos(tmp_path / "run" / "bad_videos.csv", 6, 0.2, "left out of val")
    dataset = evaluation(manifest, bad_videos=bad_videos)
    with caplog.at_level(logging.WARNING):
        read = [dataset[0, index] for index in (1, 2, 3, 2)]
    assert [sample and sample.index for sample in read] == [1, None, 3, None]
    assert [record.message.endswith("left out of val") for record in caplog.records] == [True]
    batch = collate(read)
    assert batch.index.tolist() == [1, 3]
    assert batch.clip.shape == (2, 3, 4, 32, 32)
    assert len(collate([None, None])) == 0


def test_what_verify_found_out_is_believed(videos, tmp_path):
    path = str(videos.parent / "0.mp4")
    columns = {"path": [path, path], "num_frames": [8, None], "status": ["ok", "frame 3 cannot be decoded"]}
    dataset = evaluation(Manifest.from_columns(tmp_path, columns), stride=4)
    first = dataset[0, 0].clips[0, 0, :, 4, 4]  # frames 0, 4 and twice the last, 7
    assert first.tolist() == pytest.approx([20, 40, 55, 55], abs=2)
    with pytest.raises(VideoError, match="frame 3 cannot be decoded"):
        dataset[0, 1]


def test_a_frame_rate_needs_the_files_own(videos, tmp_path):
    path = str(videos.parent / "0.mp4")  # 40 frames at 24 frames per second
    columns = {"path": [path, path], "fps": [None, 48.0]}
    dataset = EvaluationVideos(Manifest.from_columns(tmp_path, columns), GRID, Sampling(fps=12), seed=0)
    greys = [dataset[0, index].clips[0, 0, :, 4, 4].tolist() for index in (0, 1)]
    assert greys[0] == pytest.approx([20 + 5 * n for n in (16, 18, 20, 22)], abs=2)
    assert greys[1] == pytest.approx([20 + 5 * n for n in (13, 17, 21, 25)], abs=2)  # what verify measured goes first


def test_a_schedule_goes_by_the_epoch_in_training_and_has_ended_in_evaluation(videos):
    masking = partial(tube, ratio=0.1, schedule={"from": 0.25, "to": 0.75, "epochs": 3, "levels": 3})
    trained = training(Manifest.read(videos), masking=masking, repeats=2)
    assert [trained[epoch, 1].hidden.sum(1).tolist() for epoch in range(4)] == [[8, 8], [16, 16], [24, 24], [24, 24]]
    assert evaluation(Manifest.read(videos), masking=masking)[0, 1].hidden.sum() == 24
