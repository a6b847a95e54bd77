"""Images that a model may not be for: foreign ones on purpose, and a stock without labels.

score = score_foreign_images(classifier, "photos/", "others/")     # AUROC, shares let pass
drift = drift_of(classifier, "pictures/")                          # are they such as before?
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vitral.classifier import Classifier
from vitral.data.datasets import list_images
from vitral.data.near_duplicates import Tick
from vitral.data.sources import Problem, Split
from vitral.errors import DataError, ModelError
from vitral.evaluation.drift import Drift, compare_with_held_out
from vitral.evaluation.fit import confidences
from vitral.evaluation.foreign import ForeignDetector
from vitral.evaluation.foreign_score import ForeignScore, Signals, score_foreign
from vitral.fitting import Observer


def score_foreign_images(
    classifier: Classifier,
    own: Split,
    foreign: str | Path,
    *,
    batch: int = 64,
    tick: Tick | None = None,
) -> tuple[ForeignScore, tuple[Problem, ...]]:
    """Score how well a model tells images that show none of its classes, and name unreadable ones.

    Args:
        classifier: the model.
        own: images of its classes that it was not trained on.
        foreign: images, folders of them, or a source; their labels do not matter.
        batch: images at a time.
        tick: called with (images seen, images in all).

    Images that are among the own ones, byte for byte, are left out. Raises ModelError for a model
    that nothing of the kind was fitted for, DataError where there is no image, or none is another.
    """
    detector = _detector(classifier)
    splits, failed = _unlabelled(classifier, foreign)
    taken = set(_digests(own)) - {b""}  # what cannot be read is not the same
    others: list[Split] = []
    for split in splits:
        new = [i for i, digest in enumerate(_digests(split)) if digest not in taken]
        failed += [
            Problem(path=split.key(i), code="duplicate", reason="it is among the own images, too")
            for i in sorted(set(range(len(split))) - set(new))
        ]
        others += [split.select(new)] if new else []
    if not others:
        raise DataError(
            f"All images of {foreign} are among those that the model is scored on, so they are not "
            f"foreign. Name images of something else."
        )
    observer = Observer(classifier, batch, tick, [])
    strange = [_signals(observer, split) for split in others]
    calibration = classifier.card.calibration
    score = score_foreign(
        detector,
        _signals(observer, own),
        _joined(strange),
        None if calibration is None else calibration.threshold,
    )
    return score, (*failed, *observer.failed)


def drift_of(
    classifier: Classifier, pictures: str | Path, *, batch: int = 64, tick: Tick | None = None
) -> tuple[Drift, tuple[Problem, ...]]:
    """Compare images without labels with those held out for the fit; and name unreadable ones.

    Raises ModelError for a model that nothing was fitted for, DataError for too few images.
    """
    detector = _detector(classifier)
    splits, failed = _unlabelled(classifier, pictures)
    observer = Observer(classifier, batch, tick, [])
    signals = _joined([_signals(observer, split) for split in splits])
    calibration = classifier.card.calibration
    threshold = None if calibration is None else calibration.threshold
    return compare_with_held_out(detector, signals, threshold), (*failed, *observer.failed)


def _detector(classifier: Classifier) -> ForeignDetector:
    classifier.refuse_without_head()
    if classifier.foreign is None:
        raise ModelError(
            "This model has nothing to tell foreign images by. Give it that with labelled images "
            "of its classes: vitral fit RUN DATA"
        )
    return classifier.foreign


def _unlabelled(
    classifier: Classifier, source: str | Path
) -> tuple[Sequence[Split], list[Problem]]:
    listing = list_images([str(source)], max(classifier.card.images.size))
    return listing.splits, list(listing.failed)


def _signals(observer: Observer, split: Split) -> Signals:
    sample = observer.sample(split)
    classifier = observer.classifier
    return Signals(
        distances=_detector(classifier).distances(sample.detector_features),
        confidences=confidences(classifier.task.kind, sample.logits, classifier.card.calibration),
    )


def _joined(parts: Sequence[Signals]) -> Signals:
    return Signals(
        distances=np.concatenate([part.distances for part in parts]),
        confidences=np.concatenate([part.confidences for part in parts]),
    )


def _digests(split: Split) -> Iterator[bytes]:
    """The digest of every image as it is stored; none of one that cannot be read."""
    for i in range(len(split)):
        try:
            content = split.read(i)
        except DataError:
            yield b""
            continue
        stored = content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes()
        yield hashlib.blake2b(stored, digest_size=16).digest()
