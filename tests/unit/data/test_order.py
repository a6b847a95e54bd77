"""The order: complete, repeatable from any step, and the same for any number of processes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vitral.data.order import MicroBatch, Order, share, steps_per_epoch
from vitral.data.sources import Arrays, Split


def split(count: int, shards: bool = False) -> Split:
    reader = Arrays(np.zeros((count, 2, 2, 3), np.uint8), tuple(map(str, range(count))))
    where = np.arange(count) // 4 if shards else None
    return Split("train", np.zeros(count, np.int64), np.arange(count), reader, shards=where)


def indices(order: Order, step: int) -> list[int]:
    return [index for _, index, _ in order.keys(step)]


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize(("count", "batch"), [(103, 10), (100, 10), (7, 10), (1, 1), (64, 64)])
def test_an_epoch_shows_each_sample_once_and_every_epoch_another_order(count, batch, shards):
    order = Order(split(count, shards), batch, seed=3)
    steps = steps_per_epoch(count, batch)
    orders = []
    for epoch in range(3):
        keys = [key for step in range(steps) for key in order.keys(epoch * steps + step)]
        assert {key[0] for key in keys} == {epoch} and {key[2] for key in keys} == {0}
        orders.append([index for _, index, _ in keys])
        assert len(set(orders[-1])) == len(orders[-1]) == steps * order.size
        assert set(orders[-1]) <= set(range(count))
    assert count == 1 or len({tuple(order) for order in orders}) == 3
    assert count == 1 or orders[0] != [
        i for step in range(steps) for i in indices(Order(split(count, shards), batch, 4), step)
    ]


def test_any_step_can_be_asked_for_first():
    forwards = [Order(split(50), 8, 1).keys(step) for step in range(20)]
    backwards = [Order(split(50), 8, 1).keys(step) for step in reversed(range(20))]
    assert forwards == backwards[::-1]


@pytest.mark.parametrize(
    ("count", "batch", "repeats"), [(90, 12, 3), (8, 4, 3), (5, 64, 3), (2, 4, 9)]
)
def test_repeated_augmentation_yields_its_whole_share(count, batch, repeats):
    """Also for a set smaller than a batch, where sampling by 256s would yield nothing."""
    order = Order(split(count), batch, 0, repeats)
    for step in range(3 * steps_per_epoch(count, batch)):
        keys = order.keys(step)
        assert len(keys) == len(set(keys)) == min(batch, count)
        times = Counter(index for _, index, _ in keys)
        assert max(times.values()) <= repeats
        if order.size % repeats == 0:
            assert set(times.values()) == {repeats}
            assert all(a[1] != b[1] for a, b in zip(keys, keys[-1:] + keys[:-1], strict=True))
    epoch = [key for step in range(steps_per_epoch(count, batch)) for key in order.keys(step)]
    assert max(Counter(index for _, index, _ in epoch).values()) <= repeats


@pytest.mark.parametrize("count", [0, 1, 5, 12])
@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_shares_are_disjoint_even_and_everything(count, parts):
    shares = [share(list(range(count)), part, parts) for part in range(parts)]
    assert [item for piece in shares for item in piece] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_parts_of_a_step_know_who_stands_before_them():
    order = Order(split(40), 10, 0)
    keys = order.keys(2)
    assert order.part(2, 0, 1, mixes=True) == MicroBatch(keys)
    assert order.part(2, 1, 4, mixes=False) == MicroBatch(keys[2:5])
    part = order.part(2, 1, 4, mixes=True)
    assert part.keys == keys[2:5]
    assert part.mix_partners == [*keys[1::-1], *keys[:1:-1]] and len(part.mix_partners) == 10
    assert order.part(2, 0, 2, mixes=True).mix_partners == keys[::-1]
