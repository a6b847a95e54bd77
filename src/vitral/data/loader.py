"""Batches: in which order, from which worker, and always the same ones.

    for batch in train_batches(split, augment, spec, batch=64, seed=0, start_step=0, workers=2):
        ...                                  # endless; batch k is a function of (seed, k) alone

Neither workers nor a resume nor the number of processes changes what a step learns from: its
samples come from a permutation that (seed, epoch) decides, each view from (seed, epoch, sample
index), and each process loads its piece of the step's samples.
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitral.data.near_duplicates import Tick
from vitral.data.order import Key, Order, Part, share, steps_per_epoch
from vitral.data.sources import Arrays, Problem, Split
from vitral.errors import DataError, UsageError
from vitral.images.augment import Augment, alter, cut, flip, prepare
from vitral.images.preprocess import pixels
from vitral.images.seeds import seed_of
from vitral.specs import ImageSpec


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples that were read, and those that could not be.

    Attributes:
        images: uint8 (B, 3, H, W).
        labels, indices: int64 (B,); an index counts within the split.
        failed: files that could not be decoded; they are missing from the batch, which may be
            smaller for it, down to B = 0.
        places: of the readable samples among those that the batch was to hold.
        before: where images are mixed and the batch is a part of a step: the one readable sample
            before its first, which the first is mixed with.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    failed: tuple[Problem, ...] = ()
    places: tuple[int, ...] = ()
    before: Batch | None = None


def train_batches(  # noqa: PLR0913 - each has a name at every call
    split: Split,
    augment: Augment,
    spec: ImageSpec,
    *,
    batch: int,
    seed: int,
    start_step: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
    accumulate: int = 1,
) -> Generator[Batch]:
    """Batches of the steps start_step, start_step + 1, … without end, over epoch after epoch.

    Each epoch is a new permutation and drops what does not fill a step; a split smaller than a
    batch is one batch. workers = 0 reads in this process, otherwise workers read ahead.

    Args:
        split: what to read.
        augment: the views; its repeats decide how many different images a step holds.
        spec: the size of the views.
        batch: samples of one step of the optimizer, in all processes together.
        seed: of the run.
        start_step: the first step of the optimizer, counted from 0.
        workers: reading processes of this process.
        rank, world: this process among all that train together; each gets a disjoint piece.
        accumulate: batches in which this process gets its piece of a step, one after the other.
    """
    _check(split, batch=batch, workers=workers, rank=rank, world=world)
    if start_step < 0 or accumulate < 1:
        raise UsageError(
            f"start_step counts from 0 and accumulate from 1, not {start_step} and {accumulate}."
        )
    order = Order(split, batch, seed, augment.repeats)
    check_shares(order.size, world, accumulate)
    prepare(augment, spec)
    ready = _resized_once(split, spec) if augment.crop == "none" else None
    parts = (
        order.part(step, number, world * accumulate, mixes=augment.mixes)
        for step in itertools.count(start_step)
        for number in range(rank * accumulate, (rank + 1) * accumulate)
    )
    yield from _loader(_Views(split, spec, augment, seed, ready), parts, workers)


def check_shares(images: int, processes: int, parts: int) -> None:
    """UsageError for a step whose images are fewer than the parts that all processes cut."""
    if images < processes * parts:
        raise UsageError(
            f"A step of {images} images cannot be shared by {processes} processes in {parts} "
            f"parts each. Choose a larger batch or fewer of them."
        )


def eval_batches(
    split: Split, spec: ImageSpec, *, batch: int, workers: int, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """Every sample once, in order; the last batch holds what is left.

    With several processes each gets a piece of the order, of lengths that differ by one at most:
    no sample is counted twice. A piece may be empty.
    """
    _check(split, batch=batch, workers=workers, rank=rank, world=world)
    keys = share([(0, index, 0) for index in range(len(split))], rank, world)
    parts = (Part(keys[start : start + batch]) for start in range(0, len(keys), batch))
    yield from _loader(_Views(split, spec), parts, workers)


def _check(split: Split, *, batch: int, workers: int, rank: int, world: int) -> None:
    if len(split) == 0:
        raise DataError(f"The {split.name} images are none: there is nothing to read.")
    if batch < 1 or workers < 0:
        raise UsageError(f"batch is at least 1 and workers at least 0, not {batch} and {workers}.")
    if not 0 <= rank < world:
        raise UsageError(f"rank counts from 0 to world - 1, not {rank} of {world}.")


def _loader(views: _Views, order: Iterable[Part], workers: int) -> Iterator[Batch]:
    return iter(
        DataLoader(
            views,
            batch_sampler=order,  # type: ignore[arg-type]  # handed to _Views as they are
            num_workers=workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # otherwise the global random numbers move on
            worker_init_fn=_start_worker,
            prefetch_factor=2 if workers else None,
        )
    )


class _Views(Dataset[Batch]):
    """Whole batches by their keys; without an augment, the evaluation views."""

    def __init__(
        self,
        split: Split,
        spec: ImageSpec,
        augment: Augment | None = None,
        seed: int = 0,
        ready: Tensor | None = None,
    ) -> None:
        self.split, self.spec, self.augment = split, spec, augment
        self.seed, self.ready = seed, ready

    def __getitems__(self, part: Part) -> Batch:
        batch = self._read(part.keys)
        for key in part.before:  # backwards from the first, past those that cannot be read
            before = self._read([key])
            if len(before.images):
                return replace(batch, before=before)
        return batch

    def _read(self, keys: list[Key]) -> Batch:
        images = torch.empty((len(keys), 3, *self.spec.size), dtype=torch.uint8)
        indices: list[int] = []
        places: list[int] = []
        seeds: list[int] = []
        failed: list[Problem] = []
        for place, (epoch, index, copy) in enumerate(keys):
            seed = seed_of(self.seed, "view", epoch, index, *([copy] if copy else []))
            try:
                images[len(indices)] = self._view(index, seed)
            except DataError as error:
                failed.append(Problem.left_out(self.split.key(index), error))
                continue
            indices.append(index)
            places.append(place)
            seeds.append(seed)
        images = images[: len(indices)]
        if self.augment is not None:
            images = alter(images, self.augment, self.spec, seeds)
        labels = torch.from_numpy(self.split.labels[indices])
        numbers = torch.tensor(indices, dtype=torch.int64)
        return Batch(images, labels, numbers, tuple(failed), tuple(places))

    def _view(self, index: int, seed: int) -> Tensor:
        if self.augment is None:
            return pixels(self.split.read(index), self.spec)
        if self.ready is not None:
            return flip(self.ready[index], self.augment, seed)
        view = cut(self.split.read(index), self.augment, self.spec, seed)
        return flip(view, self.augment, seed)


def _resized_once(split: Split, spec: ImageSpec) -> Tensor | None:
    """The evaluation views (n, 3, H, W) of images that are in memory anyway."""
    if not isinstance(split.reader, Arrays):
        return None
    return torch.stack([pixels(split.read(index), spec) for index in range(len(split))])


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(worker: int) -> None:
    """Ctrl-C is the parent's to handle; a worker goes with its parent, and without a word."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _unless_lost
    if sys.platform == "linux":  # elsewhere torch's own watch ends it within 5 seconds
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
    parent = multiprocessing.parent_process()
    forked = multiprocessing.get_start_method() == "fork"
    if forked and parent is not None and os.getppid() != parent.pid:
        os._exit(1)  # the parent died before anybody listened
    torch.set_num_threads(1)


def _unless_lost(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """The thread that hands batches over would print how the parent hung up on it."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def told(batches: Iterable[Batch], tick: Tick | None, total: int) -> Iterator[Batch]:
    """The same batches; `tick` hears how many images of `total` they have brought so far."""
    done = 0
    for batch in batches:
        yield batch
        done += len(batch.images) + len(batch.failed)
        if tick is not None:
            tick(done, total)


__all__ = ["Batch", "eval_batches", "seed_of", "steps_per_epoch", "told", "train_batches"]
