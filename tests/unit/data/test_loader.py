"""Batches: the same for any number of workers and after any resume; quiet when they are killed."""

from __future__ import annotations

import io
import itertools
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vitral.data.loader import Batch, View, eval_batches, seed_of, steps_per_epoch, train_batches
from vitral.data.sources import Arrays, Files, Split
from vitral.errors import DataError, UsageError
from vitral.images.augment import Augment, mix, train_view
from vitral.images.preprocess import normalise, pixels
from vitral.specs import ImageSpec

SPEC = ImageSpec(size=(16, 16))
ALL = Augment(rotate=10, randaugment=(1, 5), erase=0.3)


@pytest.fixture
def photos(tmp_path) -> Split:
    """Ten JPEGs, number 3 cut off in the middle."""
    generator = np.random.default_rng(0)
    names = tuple(f"{index}.jpg" for index in range(10))
    for index, name in enumerate(names):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), np.uint8)).save(buffer, "JPEG")
        data = buffer.getvalue()
        (tmp_path / name).write_bytes(data[: len(data) // 2] if index == 3 else data)
    return Split("train", np.arange(10) % 3, np.arange(10), Files(str(tmp_path), names))


def arrays(count: int = 10, size: int = 8) -> Split:
    images = np.random.default_rng(1).integers(0, 256, (count, size, size, 3), np.uint8)
    reader = Arrays(images, tuple(f"made/{row}" for row in range(count)))
    return Split("train", np.arange(count) % 3, np.arange(count), reader)


def stream(split: Split, start: int, count: int, workers: int = 0, **changes) -> list[Batch]:
    settings = {"augment": ALL, "batch": 4, "seed": 5, **changes}
    views = settings.pop("views", None) or [View(settings["augment"], SPEC)]
    del settings["augment"]
    batches = train_batches(split, views, start_step=start, workers=workers, **settings)
    with closing(batches):
        return list(itertools.islice(batches, count))


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images)
        and torch.equal(a.labels, b.labels)
        and torch.equal(a.indices, b.indices)
        and a.failed == b.failed
        for a, b in zip(first, second, strict=True)
    )


def test_the_same_for_0_1_2_workers_and_after_a_resume(photos):
    whole = stream(photos, 0, 9)
    for workers in (1, 2):
        assert same(stream(photos, 0, 9, workers), whole)
    assert same(stream(photos, 3, 6), whole[3:])  # in the middle of the second epoch
    assert same(stream(photos, 5, 4, workers=2), whole[5:])


MIXED = replace(ALL, mixup=0.4, cutmix=1.0)


def learnt_from(parts: list[Batch], augment: Augment, step: int) -> tuple[Tensor, Tensor]:
    """What reaches the network in the step whose parts these are."""
    mixed = []
    for part in parts:
        images, before = normalise(part.images, SPEC), part.mix_partner
        neighbour = before and (normalise(before.images, SPEC), before.labels)
        mixed.append(mix(images, part.labels, 3, augment, step, neighbour))
    return torch.cat([images for images, _ in mixed]), torch.cat([rows for _, rows in mixed])


@pytest.mark.parametrize(
    "changes", [{}, {"repeats": 3}, {"crop": "none"}, {"flavour": "big_vision"}]
)
@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 2), (2, 2), (3, 1)])
def test_processes_and_accumulation_change_nothing(photos, world, accumulate, changes):
    """Labels, pixels and mixtures of a step, put together again, are those of one process.

    Photograph 3 cannot be read: whoever follows it is mixed with the one before it everywhere.
    """
    augment = replace(MIXED, **changes)
    settings = {"augment": augment, "batch": 7}
    for split in (photos, arrays()):
        whole = stream(split, 1, 4, **settings)
        group = [
            stream(split, 1, 4 * accumulate, rank=r, world=world, accumulate=accumulate, **settings)
            for r in range(world)
        ]
        for step in range(4):
            pieces = [
                batch
                for rank in group
                for batch in rank[step * accumulate : (step + 1) * accumulate]
            ]
            assert torch.equal(torch.cat([p.indices for p in pieces]), whole[step].indices)
            assert torch.equal(torch.cat([p.labels for p in pieces]), whole[step].labels)
            assert torch.equal(torch.cat([p.images for p in pieces]), whole[step].images)
            assert sum((p.failed for p in pieces), ()) == whole[step].failed
            images, targets = learnt_from([whole[step]], augment, step)
            theirs = learnt_from(pieces, augment, step)
            assert torch.equal(images, theirs[0]) and torch.equal(targets, theirs[1])
            assert torch.allclose(targets.sum(1), torch.ones(len(targets)))


def test_a_piece_is_the_same_from_workers_and_after_a_resume(photos):
    settings = {"augment": MIXED, "batch": 6, "rank": 1, "world": 2, "accumulate": 2}
    whole = stream(photos, 0, 8, **settings)
    assert all(batch.mix_partner is not None for batch in whole)
    for other in (stream(photos, 0, 8, 2, **settings), stream(photos, 0, 8, 1, **settings)):
        assert same(other, whole)
        befores = [[batch.mix_partner for batch in batches] for batches in (other, whole)]
        assert same(*befores)
    assert same(stream(photos, 3, 2, 2, **settings), whole[6:])


def test_without_mixing_nothing_more_is_read(photos):
    for batch in stream(photos, 0, 4, batch=6, rank=0, world=2):
        assert batch.mix_partner is None
    assert stream(photos, 0, 1, augment=MIXED)[0].mix_partner is None  # it is the whole step


def test_further_views_leave_the_first_as_it_is(photos):
    """Views of one sample differ, in size too; what cannot be read is missing from all of them."""
    small = View(Augment(crop_scale=(0.05, 0.3)), ImageSpec(size=(8, 12)))
    views = [View(ALL, SPEC), View(ALL, SPEC), small]
    for workers, settings in ((0, {}), (1, {"rank": 1, "world": 2})):
        alone = stream(photos, 0, 6, workers, views=views[:1], **settings)
        several = stream(photos, 0, 6, workers, views=views, **settings)
        assert same(several, alone)
        assert any(batch.failed for batch in several)
        for batch in several:
            count = len(batch.indices)
            assert [tuple(view.shape) for view in batch.views] == [
                (count, 3, 16, 16),
                (count, 3, 16, 16),
                (count, 3, 8, 12),
            ]
            assert batch.images is batch.views[0]
            assert not torch.equal(batch.views[0], batch.views[1])


def test_mixing_reads_the_first_view_of_the_sample_before(photos):
    views = [View(MIXED, SPEC), View(ALL, ImageSpec(size=(8, 8)))]
    parts = stream(photos, 0, 4, views=views, batch=6, rank=1, world=2)
    alone = stream(photos, 0, 4, views=views[:1], batch=6, rank=1, world=2)
    for part, other in zip(parts, alone, strict=True):
        assert part.mix_partner is not None and other.mix_partner is not None
        assert len(part.mix_partner.views) == 1
        assert torch.equal(part.mix_partner.images, other.mix_partner.images)


def test_copies_and_views_of_a_sample_are_all_different():
    """Repeated augmentation and several views draw from seeds of their own."""
    views = [View(replace(ALL, repeats=2), SPEC), View(ALL, SPEC)]
    (batch,) = stream(arrays(6), 0, 1, views=views, batch=6)
    first = batch.indices[0]
    pictures = [view[at] for view in batch.views for at in (batch.indices == first).nonzero()[:, 0]]
    assert len(pictures) == 4
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(pictures, 2))


def test_a_batch_has_a_view(photos):
    with pytest.raises(UsageError, match="at least one view"):
        next(train_batches(photos, [], batch=4, seed=0, start_step=0, workers=0))


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_processes_evaluate_every_sample_exactly_once(world):
    split = arrays(5)
    counted = []
    for rank in range(world):
        for batch in eval_batches(split, SPEC, batch=2, workers=0, rank=rank, world=world):
            assert 0 < len(batch.images) <= 2
            counted += batch.indices.tolist()
    assert counted == list(range(5))


def test_repeated_augmentation_shows_other_views_of_the_same_images():
    (batch,) = stream(arrays(6), 0, 1, augment=Augment(repeats=3), batch=6)
    indices = batch.indices.tolist()
    assert len(indices) == 6 and sorted(indices)[::3] == sorted(set(indices))
    assert len({image.numpy().tobytes() for image in batch.images}) == 6


def test_multi_labels_for_an_image_come_through():
    split = replace(arrays(), labels=np.eye(10, 4, dtype=bool))
    (batch,) = stream(split, 0, 1)
    assert batch.labels.shape == (4, 4) and batch.labels.dtype == torch.bool
    assert torch.equal(batch.labels, torch.from_numpy(split.labels)[batch.indices])


def test_an_epoch_takes_each_sample_at_most_once_in_a_new_order():
    epochs = [stream(arrays(), 2 * epoch, 2) for epoch in range(6)]
    orders = [torch.cat([batch.indices for batch in epoch]).tolist() for epoch in epochs]
    assert all(len(set(order)) == 8 for order in orders)
    assert len({tuple(order) for order in orders}) == 6
    assert set().union(*orders) == set(range(10))
    assert stream(arrays(), 0, 1, seed=6)[0].indices.tolist() != orders[0][:4]


def test_views_change_from_epoch_to_epoch():
    split, augment = arrays(4), Augment(crop="none", flip=0, rotate=45)
    first, second = stream(split, 0, 2, augment=augment)
    order = [batch.indices.argsort() for batch in (first, second)]
    assert not torch.equal(first.images[order[0]], second.images[order[1]])


def test_a_batch_holds_what_train_view_gives(photos):
    for split in (photos, arrays()):
        for augment in (ALL, Augment(crop="none", rotate=30, flip=0.5)):
            (batch,) = stream(split, 2, 1, augment=augment)  # step 2 of 2 a pass: epoch 1
            for image, label, index in zip(batch.images, batch.labels, batch.indices, strict=True):
                seed = seed_of(5, "view", 1, int(index))
                expected = train_view(split.read(int(index)), augment, SPEC, seed)
                assert torch.equal(image, expected) and label == split.labels[index]


@pytest.mark.parametrize(
    "spec", [SPEC, ImageSpec(size=(16, 16), crop=0.5), ImageSpec(size=(8, 24), fit="pad")]
)
def test_images_in_memory_are_resized_once_and_to_the_same_pixels(spec):
    split = arrays()
    (batch,) = stream(split, 0, 1, views=[View(Augment(crop="none", flip=0), spec)])
    for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
        assert torch.equal(image, pixels(split.read(index), spec))


def test_a_file_that_fails_is_dropped_and_named_at_every_resume(photos):
    batches = stream(photos, 0, 10)
    failed = [batch for batch in batches if batch.failed]
    assert failed
    for batch in failed:
        (problem,) = batch.failed
        assert problem.path == "3.jpg" and "truncated" in problem.reason
        assert len(batch.images) == len(batch.labels) == len(batch.indices) == 3
        assert 3 not in batch.indices
    (lone,) = stream(photos.select([3]), 0, 1)
    assert lone.images.shape == (0, 3, 16, 16) and lone.labels.shape == (0,) and lone.failed


def test_a_file_that_goes_away_is_a_failure_and_no_crash(photos, tmp_path):
    (tmp_path / "5.jpg").unlink()
    batches = list(eval_batches(photos, SPEC, batch=4, workers=2))
    assert [problem.path for batch in batches for problem in batch.failed] == ["3.jpg", "5.jpg"]


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_counts_every_sample_once_in_order(workers):
    split = arrays(10)
    batches = list(eval_batches(split, SPEC, batch=4, workers=workers))
    assert [len(batch.images) for batch in batches] == [4, 4, 2]
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(10))
    assert torch.equal(batches[2].images[1], pixels(split.read(9), SPEC))
    assert batches[2].labels.tolist() == split.labels[8:].tolist()


@pytest.mark.parametrize(("count", "batch", "steps"), [(10, 4, 2), (8, 4, 2), (3, 4, 1), (1, 1, 1)])
def test_steps_per_epoch_is_what_the_batches_do(count, batch, steps):
    assert steps_per_epoch(count, batch) == steps
    batches = stream(arrays(count), 0, steps + 1, batch=batch)
    assert {len(part.images) for part in batches} == {min(batch, count)}
    first = torch.cat([part.indices for part in batches[:steps]]).tolist()
    assert len(set(first)) == len(first)


def test_global_random_numbers_are_left_alone():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    stream(arrays(), 0, 3, workers=0)
    stream(arrays(), 0, 1, workers=1)
    list(eval_batches(arrays(), SPEC, batch=4, workers=0))
    assert torch.equal(torch.get_rng_state(), state)


def test_settings_that_cannot_be():
    with pytest.raises(DataError, match="nothing to read"):
        stream(arrays().select([]), 0, 1)
    for changes in (
        {"batch": 0},
        {"workers": -1},
        {"start": -1},
        {"accumulate": 0},
        {"rank": 1},
        {"rank": -1, "world": 2},
        {"world": 3, "accumulate": 2},  # a step of 4 images
    ):
        with pytest.raises(UsageError):
            stream(arrays(), **{"start": 0, "count": 1, **changes})


@pytest.mark.proof  # a rate, on an otherwise idle machine
def test_small_images_in_memory_cost_little():
    split, augment = arrays(600), Augment(crop="none", flip=0, rotate=10, translate=0.1)
    stream(split, 0, 2, augment=augment, batch=64)
    started = time.process_time()
    stream(split, 0, 30, augment=augment, batch=64)
    assert (time.process_time() - started) / (30 * 64) < 150e-6  # with resizing once
