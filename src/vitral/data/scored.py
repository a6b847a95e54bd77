"""The labelled images that a model is scored on, and those that two models may be compared on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vitral.data.sources import Split
from vitral.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """Images to be scored on.

    Attributes:
        split: with labels that count in the classes of the model.
        own: whether they are what training held out, on which the calibration was fitted.
        unknown: images left out of each class that the model does not know.
    """

    split: Split
    own: bool = False
    unknown: Mapping[str, int] = field(default_factory=dict)


def in_common(first: Labelled, second: Labelled) -> tuple[Labelled, Labelled]:
    """The images of both, in one order: of one source, those that neither model learnt from.

    Raises DataError where there is none.
    """
    places = {second.split.key(i): i for i in range(len(second.split))}
    kept = [i for i in range(len(first.split)) if first.split.key(i) in places]
    if not kept:
        raise DataError(
            "No image is left that both models can be asked about: each held out others, or knows "
            "other classes. Compare them on images that neither learnt from."
        )
    theirs = [places[first.split.key(i)] for i in kept]
    return (
        replace(first, split=first.split.select(kept)),
        replace(second, split=second.split.select(theirs)),
    )
