"""Load batches: the same ones for any number of workers and processes, and after any resume.

    for batch in train_batches(split, views, batch=64, seed=0, start_step=0, workers=2):
        ...                                  # endless; batch k is a function of (seed, k) alone

Neither workers nor a resume nor the number of processes changes what a step learns from: its
samples come from a permutation that (seed, epoch) decides, each view from (seed, epoch, sample
index, number of the view), and each process loads its piece of the step's samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitral import machine
from vitral.data import processes
from vitral.data.near_duplicates import Tick
from vitral.data.order import MicroBatch, Order, SampleKey, share, steps_per_epoch
from vitral.data.sources import Arrays, Problem, Split
from vitral.errors import DataError, MachineError, UsageError
from vitral.images import preprocess
from vitral.images.augment import View, alter, cut, flip, prepare
from vitral.images.preprocess import pixels
from vitral.images.seeds import seed_of
from vitral.specs import ImageSpec
from vitral.specs.augment import Augment


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples that were read, and those that could not be.

    Attributes:
        views: uint8 (B, 3, H, W) of each view of the samples; H and W may differ between views.
        labels, indices: int64 (B,); an index counts within the split.
        failed: files that could not be decoded; they are missing from the batch, which may be
            smaller for it, down to B = 0.
        places: of the readable samples among those that the batch was to hold.
        mix_partner: where images are mixed and the batch is a part of a step: the one readable
            sample before its first, in its first view, which the first is mixed with.
    """

    views: tuple[Tensor, ...]
    labels: Tensor
    indices: Tensor
    failed: tuple[Problem, ...] = ()
    places: tuple[int, ...] = ()
    mix_partner: Batch | None = None

    @property
    def images(self) -> Tensor:
        """The first view: uint8 (B, 3, H, W)."""
        return self.views[0]


def train_batches(  # noqa: PLR0913 - each has a name at every call
    split: Split,
    views: Sequence[View],
    *,
    batch: int,
    seed: int,
    start_step: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
    accumulate: int = 1,
    note: processes.Note | None = None,
) -> Generator[Batch]:
    """Yields the batches of the steps start_step, start_step + 1, … without end, epoch after epoch.

    Each epoch is a new permutation and drops what does not fill a step; a split smaller than a
    batch is one batch. workers = 0 reads in this process, otherwise workers read ahead.

    Args:
        split: what to read.
        views: what to make of each sample, at least one. The first decides whether images are
            mixed, and by its repeats how many different images a step holds.
        batch: samples of one step of the optimizer, in all processes together.
        seed: of the run.
        start_step: the first step of the optimizer, counted from 0.
        workers: reading processes of this process.
        rank, world: this process among all that train together; each gets a disjoint piece.
        accumulate: batches in which this process gets its piece of a step, one after the other.
        note: told once where loading processes cannot work as they should, and what is done.

    Raises MachineError where something else ends a loading process.
    """
    _check(split, batch=batch, workers=workers, rank=rank, world=world)
    if start_step < 0 or accumulate < 1:
        raise UsageError(
            f"start_step counts from 0 and accumulate from 1, not {start_step} and {accumulate}."
        )
    if not views:
        raise UsageError("Name at least one view: a batch without images teaches nothing.")
    order = Order(split, batch, seed, views[0].augment.repeats)
    check_shares(order.size, world, accumulate)
    for view in views:
        prepare(view.augment, view.images)
    ready = [_resized_once(split, view) for view in views]
    parts = (
        order.part(step, number, world * accumulate, mixes=views[0].augment.mixes)
        for step in itertools.count(start_step)
        for number in range(rank * accumulate, (rank + 1) * accumulate)
    )
    yield from _batches(_Samples(split, views, ready, seed), parts, workers, note)


def check_shares(images: int, processes: int, parts: int) -> None:
    """Raises UsageError for a step of fewer images than all processes cut it into."""
    if images < processes * parts:
        raise UsageError(
            f"A step of {images} images cannot be shared by {processes} processes in {parts} "
            f"parts each. Choose a larger batch or fewer of them."
        )


def eval_batches(
    split: Split,
    spec: ImageSpec,
    *,
    batch: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
    note: processes.Note | None = None,
) -> Iterator[Batch]:
    """Yields every sample once, in order; the last batch holds what is left.

    With several processes each gets a piece of the order, of lengths that differ by one at most:
    no sample is counted twice. A piece may be empty. `note`, and MachineError, as in train_batches.
    """
    _check(split, batch=batch, workers=workers, rank=rank, world=world)
    keys = share([(0, index, 0) for index in range(len(split))], rank, world)
    parts = (MicroBatch(keys[start : start + batch]) for start in range(0, len(keys), batch))
    unchanged = View(Augment(crop="none", flip=0.0), spec)
    yield from _batches(_Samples(split, [unchanged], [None], seed=0), parts, workers, note)


def _check(split: Split, *, batch: int, workers: int, rank: int, world: int) -> None:
    if len(split) == 0:
        raise DataError(f"The {split.name} images are none: there is nothing to read.")
    if batch < 1 or workers < 0:
        raise UsageError(f"batch is at least 1 and workers at least 0, not {batch} and {workers}.")
    if not 0 <= rank < world:
        raise UsageError(f"rank counts from 0 to world - 1, not {rank} of {world}.")


def eval_workers(split: Split, device: torch.device) -> int:
    """Return how many processes should read a split for a network, outside of a training.

    Beside a GPU so many keep it busy; on a CPU they would compete with the network.
    """
    if device.type == "cpu" or isinstance(split.reader, Arrays):
        return 0
    return min(8, machine.cores())


def _batches(
    samples: _Samples, order: Iterable[MicroBatch], workers: int, note: processes.Note | None
) -> Iterator[Batch]:
    """Batches of the order from so many loading processes, or from this one where none can be."""
    if workers and (why := processes.can_start()):
        workers = 0
        if note is not None:
            note(f"pictures are read in this process, since {why}")
    loader = DataLoader(
        samples,
        batch_sampler=order,  # type: ignore[arg-type]  # handed to _Samples as they are
        num_workers=workers,
        collate_fn=processes.hand_over if workers else _as_it_is,
        generator=torch.Generator(),  # otherwise the global random numbers move on
        worker_init_fn=processes.begin,
        prefetch_factor=2 if workers else None,
    )
    try:
        if not workers:
            yield from loader
            return
        with processes.starting(samples.split.reader):
            packed = iter(loader)
        for each in packed:
            if isinstance(each, processes.Copied) and note is not None:
                note(f"pictures come from the loading processes through pipes, slower: {each.why}")
                note = None  # once
            yield processes.receive(each)
    except RuntimeError as error:
        if text := processes.lost(error):
            raise MachineError(text) from None
        raise


class _Samples(Dataset[Batch]):
    """Whole batches by the keys of their samples.

    Attributes:
        split: the samples.
        views: what to make of each.
        ready: for each view, the evaluation views (n, 3, H, W) it starts from, where known.
        seed: of the run.
    """

    def __init__(
        self, split: Split, views: Sequence[View], ready: Sequence[Tensor | None], seed: int
    ) -> None:
        self.split = split
        self.views = tuple(views)
        self.ready = tuple(ready)
        self.seed = seed

    def __getitems__(self, part: MicroBatch) -> Batch:
        batch = self._read(part.keys, len(self.views))
        for key in part.mix_partners:  # backwards from the first, past those that cannot be read
            partner = self._read([key], 1)  # images are mixed in the first view alone
            if len(partner.images):
                return replace(batch, mix_partner=partner)
        return batch

    def _read(self, keys: list[SampleKey], count: int) -> Batch:
        """The samples of these keys in the first `count` views."""
        sizes = [view.images.size for view in self.views[:count]]
        views = [torch.empty((len(keys), 3, *size), dtype=torch.uint8) for size in sizes]
        indices: list[int] = []
        places: list[int] = []
        seeds: list[list[int]] = []
        failed: list[Problem] = []
        for place, key in enumerate(keys):
            _, index, _ = key
            own_seeds = [_view_seed(self.seed, key, number) for number in range(count)]
            try:
                source = self.split.read(index)
                for number, seed in enumerate(own_seeds):
                    views[number][len(indices)] = self._view(number, source, index, seed)
            except DataError as error:
                failed.append(Problem.left_out(self.split.key(index), error))
                continue
            indices.append(index)
            places.append(place)
            seeds.append(own_seeds)
        finished = []
        for number, view in enumerate(self.views[:count]):
            images = views[number][: len(indices)]
            of_view = [own_seeds[number] for own_seeds in seeds]
            finished.append(alter(images, view.augment, view.images, of_view))
        labels = torch.from_numpy(self.split.labels[indices])
        numbers = torch.tensor(indices, dtype=torch.int64)
        return Batch(tuple(finished), labels, numbers, tuple(failed), tuple(places))

    def _view(self, number: int, source: bytes | np.ndarray, index: int, seed: int) -> Tensor:
        view = self.views[number]
        ready = self.ready[number]
        start = cut(source, view.augment, view.images, seed) if ready is None else ready[index]
        return flip(start, view.augment, seed)


def _view_seed(run_seed: int, key: SampleKey, number: int) -> int:
    """The seed of one view of one sample.

    The first view of a sample's first copy is drawn as it was when there was but one view, so that
    runs from then go on as they would have.
    """
    epoch, index, copy = key
    if number:
        return seed_of(run_seed, f"view {number}", epoch, index, copy)
    return seed_of(run_seed, "view", epoch, index, *([copy] if copy else []))


def _resized_once(split: Split, view: View) -> Tensor | None:
    """The evaluation views (n, 3, H, W) of images that are in memory anyway and are not cropped."""
    if view.augment.crop != "none" or not isinstance(split.reader, Arrays):
        return None
    return torch.stack([pixels(split.read(index), view.images) for index in range(len(split))])


def _as_it_is(batch: Any) -> Any:
    return batch


def with_progress(batches: Iterable[Batch], tick: Tick | None, total: int) -> Iterator[Batch]:
    """Passes batches on, and calls `tick` with (images that came so far, `total`)."""
    done = 0
    for batch in batches:
        yield batch
        done += len(batch.images) + len(batch.failed)
        if tick is not None:
            tick(done, total)


__all__ = [
    "Batch",
    "View",
    "eval_batches",
    "seed_of",
    "steps_per_epoch",
    "train_batches",
    "with_progress",
]


def ready_images(
    split: Split, spec: ImageSpec, most: int
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Read at most so many images of a split, drawn from a seed, normalised, and their labels.

    Raises DataError where none can be read.
    """
    rows = np.sort(np.random.default_rng(0).permutation(len(split))[:most])
    images: list[NDArray[np.float32]] = []
    labels: list[NDArray[Any]] = []
    for batch in eval_batches(split.select(rows), spec, batch=64, workers=0):
        if len(batch.images):
            images.append(preprocess.normalise(batch.images, spec).numpy())
            labels.append(batch.labels.numpy())
    if not images:
        raise DataError(f"None of the {len(rows):,} images that were drawn can be read.")
    return np.concatenate(images), np.concatenate(labels)
