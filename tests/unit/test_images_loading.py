"""Batches: the same for any number of workers and after any resume; quiet when they are killed."""

from __future__ import annotations

import io
import itertools
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitral.errors import DataError, UsageError
from vitral.images.augment import Augment, train_view
from vitral.images.loading import Batch, eval_batches, seed_of, steps_per_epoch, train_batches
from vitral.images.preprocess import pixels
from vitral.images.sources import Arrays, Files, Split
from vitral.spec import ImageSpec

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
    settings = {"augment": ALL, "spec": SPEC, "batch": 4, "seed": 5, **changes}
    batches = train_batches(split, start_step=start, workers=workers, **settings)
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
    (batch,) = stream(split, 0, 1, augment=Augment(crop="none", flip=0), spec=spec)
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
    for changes in ({"batch": 0}, {"workers": -1}, {"start": -1}):
        with pytest.raises(UsageError):
            stream(arrays(), **{"start": 0, "count": 1, **changes})


@pytest.mark.proof  # a rate, on an otherwise idle machine
def test_small_images_in_memory_cost_little():
    split, augment = arrays(600), Augment(crop="none", flip=0, rotate=10, translate=0.1)
    stream(split, 0, 2, augment=augment, batch=64)
    started = time.process_time()
    stream(split, 0, 30, augment=augment, batch=64)
    assert (time.process_time() - started) / (30 * 64) < 150e-6  # with resizing once


READER = """
import itertools, sys, time
from vitral.images.augment import Augment
from vitral.images.datasets import open_dataset
from vitral.images.loading import train_batches
from vitral.spec import ImageSpec
split = open_dataset("shapes", size=16, count=64).train
batches = train_batches(split, Augment(crop="none"), ImageSpec(size=16), batch=8, seed=0,
                        start_step=0, workers=2)
next(batches)
print("ready", flush=True)
for batch in batches:
    time.sleep(0.05)
"""


def living_group(group: int) -> list[int]:
    """Process ids of a process group, zombies left out."""
    living = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, of_group = (process / "stat").read_text().rsplit(")", 1)[1].split()[:3]
        except OSError:  # it ended in the meantime
            continue
        if int(of_group) == group and state != "Z":
            living.append(int(process.name))
    return living


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_go_when_the_parent_does_and_say_nothing(how):
    with subprocess.Popen(
        [sys.executable, "-c", READER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None and parent.stderr is not None
        assert parent.stdout.readline() == "ready\n", parent.stderr.read()
        assert len(living_group(parent.pid)) >= 3
        if how == signal.SIGINT:
            os.killpg(parent.pid, how)  # as the terminal does it: to the workers too
        else:
            parent.send_signal(how)
        said = parent.stderr.read()
    deadline = time.monotonic() + 20
    while living_group(parent.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not living_group(parent.pid)
    assert said.count("Traceback") == (1 if how == signal.SIGINT else 0), said
    assert "DataLoader worker" not in said and "leaked" not in said, said
