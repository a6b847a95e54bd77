"""Decide the order of samples: which ones a step holds, and which of them a process loads.

    Order(split, batch=1024, seed=0).keys(step)      # a function of its arguments alone
    share(keys, rank, world)                         # disjoint, together everything

Nothing here is a state, so a resume needs the number of the step and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from vitral.data.sources import Split
from vitral.images.seeds import seed_of

SampleKey = tuple[int, int, int]  # (epoch, sample index, which copy of it in the batch)
T = TypeVar("T")


def steps_per_epoch(count: int, batch: int) -> int:
    """Counts the batches in one pass over `count` samples; a last, smaller one is left out."""
    return max(1, count // batch)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The keys of the samples of one batch, which is a step or a part of one.

    Attributes:
        keys: in their order.
        mix_partners: where the batch is mixed and only a part of its step: the samples to mix its
            first one with, best first; the next ones stand in for those that cannot be read.
    """

    keys: list[SampleKey]
    mix_partners: list[SampleKey] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Order:
    """The order of the samples of a run, step by step.

    Attributes:
        split: the samples.
        batch: samples per step, of all processes together; a split smaller than it is one batch.
        seed: of the run.
        repeats: how often each image of a batch comes (repeated augmentation, arXiv:1901.09335).
            A step keeps its size, so an epoch shows about count / repeats different images.
    """

    split: Split
    batch: int
    seed: int
    repeats: int = 1

    @property
    def size(self) -> int:
        """Samples of each step."""
        return min(self.batch, len(self.split))

    def keys(self, step: int) -> list[SampleKey]:
        """Lists the samples of a step in their order, for all processes together.

        Copies of an image stand as far apart as they can: they meet in different processes, and
        mixing with the sample before never mixes an image with itself while there are others.
        """
        epoch, step = divmod(step, steps_per_epoch(len(self.split), self.batch))
        different = -(-self.size // self.repeats)
        first = step * different
        chosen = _permutation(self.split, self.seed, epoch)[first : first + different]
        return [
            (epoch, chosen[place % different], place // different) for place in range(self.size)
        ]

    def part(self, step: int, number: int, parts: int, *, mixes: bool) -> MicroBatch:
        """Lists one of the consecutive parts into which processes and accumulation cut a step."""
        keys = self.keys(step)
        mine = share(keys, number, parts)
        if not mixes or parts == 1:
            return MicroBatch(mine)
        start = keys.index(mine[0])
        return MicroBatch(mine, [*keys[start:], *keys[:start]][::-1])


def share(samples: list[T], part: int, parts: int) -> list[T]:
    """Cuts out one of `parts` consecutive pieces, whose lengths differ by one at most."""
    return samples[part * len(samples) // parts : (part + 1) * len(samples) // parts]


@lru_cache(maxsize=2)  # the epochs on both sides of a boundary
def _permutation(split: Split, seed: int, epoch: int) -> list[int]:
    return split.order(seed_of(seed, "order", epoch))
