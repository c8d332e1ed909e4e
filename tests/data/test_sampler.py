import pytest

from tubelet.data.sampler import EvaluationBatches, TrainingBatches, per_device_batch


def test_an_epoch_is_a_permutation_and_epochs_differ():
    batches = list(TrainingBatches(10, 3, seed=0))
    assert [len(batch) for batch in batches] == [3, 3, 3]  # the tenth is dropped
    assert len({index for batch in batches for _, index in batch}) == 9
    assert {epoch for batch in batches for epoch, _ in batch} == {0}
    assert batches == list(TrainingBatches(10, 3, seed=0))
    assert batches != list(TrainingBatches(10, 3, seed=1))
    second = list(TrainingBatches(10, 3, seed=0, position=lambda: 3))
    assert {epoch for batch in second for epoch, _ in batch} == {1}
    assert [[i for _, i in b] for b in batches] != [[i for _, i in b] for b in second]


@pytest.mark.parametrize("done", range(8))
def test_resume_gives_exactly_the_rest_of_the_epoch(done):
    whole = [list(TrainingBatches(17, 4, seed=3, position=lambda e=e: e * 4)) for e in range(2)]
    resumed = TrainingBatches(17, 4, seed=3, position=lambda: done)
    assert list(resumed) == whole[done // 4][done % 4 :]
    assert len(resumed) == 4


@pytest.mark.parametrize(("ranks", "accumulate"), [(2, 1), (1, 2), (2, 2), (4, 2), (8, 1)])
def test_global_batches_do_not_depend_on_ranks_and_accumulation(ranks, accumulate):
    alone = [set(batch) for batch in TrainingBatches(50, 8, seed=1)]
    parts = [
        list(TrainingBatches(50, 8, seed=1, rank=rank, ranks=ranks, accumulate=accumulate)) for rank in range(ranks)
    ]
    assert {len(batch) for part in parts for batch in part} == {8 // (ranks * accumulate)}
    for step, expected in enumerate(alone):
        micro = range(step * accumulate, (step + 1) * accumulate)
        slots = [slot for part in parts for k in micro for slot in part[k]]
        assert len(slots) == 8
        assert set(slots) == expected


def test_position_means_the_same_for_any_number_of_ranks():
    alone = list(TrainingBatches(50, 8, seed=1, position=lambda: 2))
    pair = [list(TrainingBatches(50, 8, seed=1, position=lambda: 2, rank=rank, ranks=2)) for rank in range(2)]
    assert [set(a) | set(b) for a, b in zip(*pair, strict=True)] == [set(batch) for batch in alone]


def test_batch_sizes_are_checked():
    assert per_device_batch(64, 4, 2) == 8
    with pytest.raises(ValueError, match=r"batch_size 10 is not divisible by 4 ranks x 1 accumulated"):
        per_device_batch(10, 4, 1)
    with pytest.raises(ValueError, match="accumulate must be at least 1, got 0"):
        per_device_batch(10, 1, 0)
    with pytest.raises(ValueError, match=r"3 training videos do not fill one batch: data.batch_size is 4"):
        TrainingBatches(3, 4, seed=0)


@pytest.mark.parametrize(("size", "per_device", "ranks"), [(499, 8, 1), (499, 8, 2), (10, 2, 3), (33, 8, 4), (3, 8, 1)])
def test_evaluation_sees_every_sample_once(size, per_device, ranks):
    parts = [list(EvaluationBatches(size, per_device, rank=rank, ranks=ranks)) for rank in range(ranks)]
    slots = [slot for part in parts for batch in part for slot in batch]
    assert sorted(slots) == [(0, index) for index in range(size)]
    assert all(0 < len(batch) <= per_device for part in parts for batch in part)
    assert {len(part) for part in parts} == {-(-size // (per_device * ranks))}
    loader = EvaluationBatches(size, per_device, ranks=ranks)
    assert len(loader) == len(parts[0])


def test_evaluation_with_fewer_samples_than_ranks():
    assert list(EvaluationBatches(2, 4, rank=2, ranks=3)) == []
