"""Batches: in which order, from which worker, and always the same ones.

    for batch in train_batches(split, augment, spec, batch=64, seed=0, start_step=0, workers=2):
        ...                                  # endless; batch k is a function of (seed, k) alone

The number of workers or a resume never changes a batch: its samples come from a permutation that
(seed, epoch) decides, and each view from (seed, epoch, sample index).
"""

from __future__ import annotations

import ctypes
import hashlib
import signal
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vitral.errors import DataError, UsageError
from vitral.images.augment import Augment, alter, cut, prepare
from vitral.images.preprocess import pixels
from vitral.images.sources import Arrays, Problem, Split
from vitral.spec import ImageSpec

_Keys = list[tuple[int, int]]  # (epoch, sample index) of each sample of a batch


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples that were read, and those that could not be.

    Attributes:
        images: uint8 (B, 3, H, W).
        labels, indices: int64 (B,); an index counts within the split.
        failed: files that could not be decoded; they are missing from the batch, which may be
            smaller for it, down to B = 0.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    failed: tuple[Problem, ...] = ()


def steps_per_epoch(count: int, batch: int) -> int:
    """Batches in one pass over `count` samples; a last, smaller one is left out."""
    return max(1, count // batch)


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def train_batches(
    split: Split,
    augment: Augment,
    spec: ImageSpec,
    *,
    batch: int,
    seed: int,
    start_step: int,
    workers: int,
) -> Generator[Batch]:
    """Batches start_step, start_step + 1, … without end, over as many epochs as it takes.

    Each epoch is a new permutation and drops what does not fill a batch; a split smaller than a
    batch is one batch. workers = 0 reads in this process, otherwise workers read ahead.
    """
    _check(split, batch=batch, workers=workers)
    if start_step < 0:
        raise UsageError(f"start_step counts from 0, not {start_step}.")
    prepare(augment, spec)
    if augment.crop == "none":
        split, spec = _resized_once(split, spec)
    views = _Views(split, spec, augment, seed)
    yield from _loader(views, _Endless(len(split), batch, seed, start_step), workers)


def eval_batches(split: Split, spec: ImageSpec, *, batch: int, workers: int) -> Iterator[Batch]:
    """Every sample once, in order; the last batch holds what is left."""
    _check(split, batch=batch, workers=workers)
    yield from _loader(_Views(split, spec), _InOrder(len(split), batch), workers)


def _check(split: Split, *, batch: int, workers: int) -> None:
    if len(split) == 0:
        raise DataError(f"The {split.name} images are none: there is nothing to read.")
    if batch < 1 or workers < 0:
        raise UsageError(f"batch is at least 1 and workers at least 0, not {batch} and {workers}.")


def _loader(views: _Views, order: Sampler[_Keys], workers: int) -> Iterator[Batch]:
    return iter(
        DataLoader(
            views,
            batch_sampler=order,
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
        self, split: Split, spec: ImageSpec, augment: Augment | None = None, seed: int = 0
    ) -> None:
        self.split, self.spec, self.augment, self.seed = split, spec, augment, seed

    def __getitems__(self, keys: _Keys) -> Batch:
        images = torch.empty((len(keys), 3, *self.spec.size), dtype=torch.uint8)
        indices: list[int] = []
        seeds: list[int] = []
        failed: list[Problem] = []
        for epoch, index in keys:
            seed = seed_of(self.seed, "view", epoch, index)
            try:
                images[len(indices)] = self._view(index, seed)
            except DataError as error:
                failed.append(Problem(self.split.key(index), str(error)))
                continue
            indices.append(index)
            seeds.append(seed)
        images = images[: len(indices)]
        if self.augment is not None:
            images = alter(images, self.augment, self.spec, seeds)
        labels = torch.from_numpy(self.split.labels[indices])
        return Batch(images, labels, torch.tensor(indices, dtype=torch.int64), tuple(failed))

    def _view(self, index: int, seed: int) -> Tensor:
        source = self.split.read(index)
        if self.augment is None:
            return pixels(source, self.spec)
        return cut(source, self.augment, self.spec, seed)


def _resized_once(split: Split, spec: ImageSpec) -> tuple[Split, ImageSpec]:
    """Images in memory as their evaluation views, and the spec that leaves those as they are."""
    if not isinstance(split.reader, Arrays):
        return split, spec
    views = [pixels(split.read(index), spec).permute(1, 2, 0) for index in range(len(split))]
    images = torch.stack(views).numpy()
    keys = tuple(split.key(index) for index in range(len(split)))
    resized = replace(split, rows=np.arange(len(split)), reader=Arrays(images, keys))
    return resized, replace(spec, crop=1.0)


class _Endless(Sampler[_Keys]):
    """The keys of every batch from a step on: a pure function of (count, batch, seed, step)."""

    def __init__(self, count: int, batch: int, seed: int, start: int) -> None:
        self.count, self.batch, self.seed, self.start = count, min(batch, count), seed, start

    def __iter__(self) -> Iterator[_Keys]:
        steps = steps_per_epoch(self.count, self.batch)
        epoch, first = divmod(self.start, steps)
        while True:
            generator = torch.Generator().manual_seed(seed_of(self.seed, "order", epoch))
            order = torch.randperm(self.count, generator=generator).tolist()
            for step in range(first, steps):
                part = order[step * self.batch : (step + 1) * self.batch]
                yield [(epoch, index) for index in part]
            epoch, first = epoch + 1, 0


class _InOrder(Sampler[_Keys]):
    """Every index once."""

    def __init__(self, count: int, batch: int) -> None:
        self.count, self.batch = count, batch

    def __iter__(self) -> Iterator[_Keys]:
        for start in range(0, self.count, self.batch):
            yield [(0, index) for index in range(start, min(start + self.batch, self.count))]


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(worker: int) -> None:
    """Ctrl-C is the parent's to handle; a worker goes with its parent, and without a word."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _unless_lost
    if sys.platform == "linux":  # elsewhere torch's own watch ends it within 5 seconds
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
    torch.set_num_threads(1)


def _unless_lost(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """The thread that hands batches over would print how the parent hung up on it."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
