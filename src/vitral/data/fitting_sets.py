"""Open the images that something is fitted to after training, in the two parts that it needs.

images = open_for_fitting("photos/", classes, division=card.division)     # images.learnt, .held_out
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vitral.data import layouts
from vitral.data.datasets import divided_by_training, open_dataset, without_unknown
from vitral.data.problems import unknown_class
from vitral.data.sources import Division, Problem, SourceOptions, Split


@dataclass(frozen=True, kw_only=True, slots=True)
class FittingSet:
    """Images that something is fitted to after training, with labels as the model counts them.

    Attributes:
        learnt: those that the model learnt from, or others in their place.
        held_out: those that it was not to learn from.
        as_trained: whether training itself divided them so.
        undivided: whether the source has no split of its own, so that all are alike.
        unknown: images left out of each class that the model does not know.
        problems: what was wrong with others, and what should be known of these.
    """

    learnt: Split
    held_out: Split
    as_trained: bool
    undivided: bool = False
    unknown: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def open_for_fitting(
    source: str | Path,
    classes: Sequence[str],
    *,
    division: Division | None = None,
    size: int | None = None,
    allow_unknown: bool = False,
) -> FittingSet:
    """Finds the two parts of a source that a model is fitted to after training.

    They are those of the training, where `source` is its data as it was; otherwise those that the
    source itself has, or that training would divide it into. The arguments and errors are those of
    open_for_scoring.
    """
    if division is not None:
        own = divided_by_training(source, division, size)
        if own is not None:
            return FittingSet(learnt=own.train, held_out=own.val, as_trained=True)
    tree = "folders" if division is not None and division.nested else "none"
    found = open_dataset(source, size=size, allow_unreadable=True, tree=tree)
    undivided = layouts.find(str(source), SourceOptions(size=size, tree=tree)).held_out is None
    names = [*classes, *(name for name in found.classes if name not in classes)]
    place = np.array([names.index(name) for name in found.classes])
    parts: list[Split] = []
    unknown: dict[str, int] = {}
    for split in (found.train, found.val):
        if split.labels.ndim > 1:
            labels = np.zeros((len(split), len(names)), bool)
            labels[:, place] = split.labels
        else:
            labels = place[split.labels]
        part, left = without_unknown(replace(split, labels=labels), names, len(classes), source)
        parts.append(part)
        unknown = {name: unknown.get(name, 0) + left.get(name, 0) for name in unknown | left}
    if unknown and not allow_unknown:
        raise unknown_class(source, min(unknown), classes)
    return FittingSet(
        learnt=parts[0],
        held_out=parts[1],
        as_trained=False,
        undivided=undivided,
        unknown=unknown,
        problems=found.problems,
    )
