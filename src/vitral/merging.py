"""Choose how many tokens a network merges: the fastest schedule that costs at most half a point.

What counts is time, measured here at a batch as those in use, and accuracy on the images held out
by the training; both are kept in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitral.data.fitting_sets import open_for_fitting
from vitral.data.loader import ready_images
from vitral.engines import merge_choices, openvino_engine
from vitral.engines.measure import interleaved
from vitral.engines.openvino_graph import to_openvino
from vitral.engines.torch_engine import TorchEngine
from vitral.errors import DataError, UsageError
from vitral.specs.merging import AUTO, OFF, merge_counts, refuse_network

if TYPE_CHECKING:
    from vitral.engines.base import Engine, Precision
    from vitral.model import ViT
    from vitral.specs import ModelSpec
    from vitral.weights.card import Card

MOST_LOSS = 0.005  # of the accuracy
LEAST_GAIN = 1.05  # below which merging is not worth its name
BATCH = 16
IMAGES = 1000
ROUNDS = 5
SHARES = (0.15, 0.3, 0.45, 0.6, 0.75)  # of the patches, merged by the end


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A measurement of one schedule.

    Attributes:
        merge: the schedule as `--merge` reads it.
        accuracy: share of right answers.
        speed: images a second over those without merging, the median of interleaved rounds.
    """

    merge: str
    accuracy: float
    speed: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A choice of a schedule.

    Attributes:
        merge: the one to take; "off" where none is both faster and as good.
        images: how many its accuracy was measured on.
        rows: all that were measured, the first without merging.
    """

    merge: str
    images: int
    rows: tuple[Row, ...]

    def sentence(self) -> str:
        """Say what was chosen and why."""
        plain = self.rows[0]
        for row in self.rows[1:]:
            if row.merge == self.merge:
                return (
                    f"merge     {row.merge}: {row.speed:.2f} times as fast at batches of {BATCH}, "
                    f"{100 * row.accuracy:.1f} % of {self.images:,} held-out images right, "
                    f"{100 * plain.accuracy:.1f} % without merging"
                )
        return "merge     off: no schedule is faster within half a point of accuracy"


def choose(
    network: ViT,
    card: Card,
    digest: str,
    engine: Engine,
    asked: tuple[str, Precision],
    *,
    announce: Callable[[str], None],
    to_the_end: bool = False,
) -> Choice:
    """Choose the schedule for a network that is computed by an engine, and keep the choice.

    `asked` are the engine and precision that the choice is kept for. Schedules that merge more than
    one that costs too much are measured `to_the_end` alone. Raises DataError where the
    images that the model was held to cannot be found, UsageError for networks that cannot merge or
    give several labels.
    """
    refuse_network(card.model)
    if card.task.multi_label:
        raise UsageError(f"--merge {AUTO} counts right answers, and this model has several labels.")
    images, labels = _held_out(card)
    announce(f"merge     measuring schedules on {len(images):,} held-out images, once")
    batch = images[np.arange(BATCH) % len(images)]
    rows = [Row(merge=OFF, accuracy=_accuracy(engine, images, labels), speed=1.0)]
    for shape in _SHAPES:
        for share in SHARES:
            merge = shape(card.model, share)
            counts = merge_counts(merge, card.model)
            if not counts or any(row.merge == merge for row in rows):
                continue
            merging = _like(engine, network.merged(counts))
            accuracy = _accuracy(merging, images, labels)
            calls = [partial(each.logits, batch) for each in (engine, merging)]
            plain, fewer = (np.array(seconds) for seconds in interleaved(calls, ROUNDS))
            rows.append(Row(merge=merge, accuracy=accuracy, speed=float(np.median(plain / fewer))))
            if accuracy < rows[0].accuracy - MOST_LOSS and not to_the_end:
                break  # more of the same costs more
    choice = Choice(merge=_best(rows), images=len(images), rows=tuple(rows))
    merge_choices.keep(digest, *asked, asdict(choice))
    announce(choice.sentence())
    return choice


def _best(rows: list[Row]) -> str:
    able = [row for row in rows[1:] if row.accuracy >= rows[0].accuracy - MOST_LOSS]
    fastest = max(able, key=lambda row: row.speed, default=rows[0])
    return fastest.merge if fastest.speed >= LEAST_GAIN else OFF


def _constant(spec: ModelSpec, share: float) -> str:
    """As many tokens in each block."""
    return str(max(round(share * _patches(spec) / spec.depth), 1))


def _falling(spec: ModelSpec, share: float) -> str:
    """From twice as many in the first block down to none in the last."""
    return f"{_constant(spec, share)},-1"


def _thirds(spec: ModelSpec, share: float) -> str:
    """All in every third block, where the matching costs a third."""
    return f"{max(round(share * _patches(spec) / -(-spec.depth // 3)), 1)}/3"


_SHAPES = (_falling, _thirds, _constant)


def _patches(spec: ModelSpec) -> int:
    return spec.grid[0] * spec.grid[1]


def _like(engine: Engine, network: ViT) -> Engine:
    """An engine of the same kind and precision for another network."""
    if isinstance(engine, openvino_engine.OpenVINOEngine):
        return openvino_engine.opened(to_openvino(network), engine.precision)
    assert isinstance(engine, TorchEngine)
    return TorchEngine(network, engine.device, engine.precision)


def _accuracy(engine: Engine, images: NDArray[np.float32], labels: NDArray[Any]) -> float:
    right = 0
    for start in range(0, len(images), BATCH):
        part = torch.from_numpy(images[start : start + BATCH])
        answers = engine.logits(part).argmax(axis=1)
        right += int((answers == labels[start : start + BATCH]).sum())
    return right / len(images)


def _held_out(card: Card) -> tuple[NDArray[np.float32], NDArray[Any]]:
    recipe: Any = card.made_by.get("recipe") or {}
    source = (recipe.get("data") or {}).get("source")
    try:
        if not source:
            raise DataError("it does not say which images it learnt from.")
        found = open_for_fitting(
            source, card.classes, division=card.division, size=max(card.images.size)
        )
        return ready_images(found.held_out, card.images, IMAGES)
    except DataError as error:
        raise DataError(
            f"--merge {AUTO} is measured on the images that were held out for the model, and they "
            f"cannot be had: {error} Give a number instead: --merge 8."
        ) from None
