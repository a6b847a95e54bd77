"""Foreign images show none of the classes; their features lie far from all that were learnt.

detector = fit(learnt, held_out)          # Samples of images with their labels
detector.distances(features) > 1          # (N,) whether each is foreign

A distance of 1 is the limit that 95 of 100 held-out images keep. Which distance tells best is
chosen on classes that are held out in turn, so that no foreign image is needed:

- mahalanobis: to the nearest class mean, under the covariance within the classes (Lee et al. 2018),
  which is shrunk as Ledoit and Wolf (2004) do;
- gaussian: to the mean of all, under the covariance of all;
- neighbours: of features of unit length, to the k-th nearest that was learnt (Sun et al. 2022).
"""
# ruff: noqa: PLC0415 - scikit-learn takes seconds to import, which fitting alone should pay

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitral.errors import ModelError, WeightsError

DistanceKind = Literal["mahalanobis", "gaussian", "neighbours"]
Floats = NDArray[np.float64]

KINDS: tuple[DistanceKind, ...] = ("mahalanobis", "gaussian", "neighbours")
SENTENCES: Mapping[DistanceKind, str] = {
    "mahalanobis": "the distance to the nearest class mean",
    "gaussian": "the distance to the mean of all",
    "neighbours": "the distance to the nearest images",
}
KEPT = 0.95  # share of the held-out images that are not foreign
MOST_IMAGES = 5_000  # that are looked at on either side: the cost is bounded whatever the data
MOST_VALUES = 1 << 22  # of one matrix in the artifact, 16 MB
FOLDS = 5  # groups of classes that are held out in turn
NEIGHBOURS = 10  # the k of the k-th nearest, fewer of fewer than 100 images
FEW = 20  # held-out images, below which the limit is the farthest of them
ROUNDING = 1e-4  # of the limit: another batch computes a feature a little differently

_NUMBERS = 1 << 22  # distances in memory at a time
_NAMES = ("kind", "points", "neighbours", "limit", "distances", "confidences", "auroc", "learnt")
_PLACED = ("centre", "projection")  # beside them, unless the features get unit length


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sample:
    """A sample of labelled images, and the outputs of a network for them.

    Attributes:
        features: float32 (N, D), what the head reads.
        logits: float32 (N, K).
        labels: int (N,), or bool (N, K) where an image has several.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Place:
    """The space of a distance: `points` in it, one of which every image of the classes is near.

    Attributes:
        kind: which distance it is.
        points: (P, R) class means, one mean, or images.
        neighbours: which nearest point counts, from 1.
        centre, projection: (D,) and (D, R), by which features get there; None where they get unit
            length instead.
    """

    kind: DistanceKind
    points: NDArray[np.float32]
    neighbours: int = 1
    centre: NDArray[np.float32] | None = None
    projection: NDArray[np.float32] | None = None

    def distances(self, features: NDArray[np.float32]) -> Floats:
        """Compute how far features (N, D) lie from the points: (N,)."""
        points = self.points.astype(np.float64)
        lengths = (points**2).sum(axis=1)
        rows = max(1, _NUMBERS // max(len(points), features.shape[1]))
        result = np.empty(len(features))
        for start in range(0, len(features), rows):
            x = self._placed(features[start : start + rows].astype(np.float64))
            squares = (x**2).sum(axis=1, keepdims=True) + lengths - 2 * x @ points.T
            nth = np.partition(squares, self.neighbours - 1, axis=1)[:, self.neighbours - 1]
            result[start : start + rows] = np.sqrt(np.maximum(nth, 0))
        return result

    def _placed(self, features: Floats) -> Floats:
        if self.centre is None or self.projection is None:
            return unit(features)
        placed: Floats = (features - self.centre) @ self.projection.astype(np.float64)
        return placed


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ForeignDetector:
    """A detector of images that show none of the classes.

    Attributes:
        place: the distance.
        limit: the distance that KEPT of the held-out images do not exceed; `distances` count in it.
        held_out: (M,) the distances of held-out images, ascending.
        confidences: (M,) the probabilities of their answers.
        auroc: by kind, how well held-out classes were told from the others; empty where there was
            nothing to choose by.
        learnt: images that the place was made from.
    """

    place: Place
    limit: float
    held_out: NDArray[np.float32]
    confidences: NDArray[np.float32]
    auroc: Mapping[DistanceKind, float]
    learnt: int

    @property
    def kind(self) -> DistanceKind:
        """Name the distance."""
        return self.place.kind

    def distances(self, features: NDArray[np.float32]) -> Floats:
        """Compute how far features (N, D) lie from what was learnt, (N,); foreign above 1."""
        return self.place.distances(features) / self.limit

    @property
    def told(self) -> str:
        """Write for a terminal how foreign images are told."""
        chosen = f", AUROC {self.auroc[self.kind]:.3f} on held-out classes" if self.auroc else ""
        return (
            f"by {SENTENCES[self.kind]}{chosen}; from {self.learnt:,} training and "
            f"{len(self.held_out):,} held-out images"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of how it was made, for the card."""
        return {
            "kind": self.kind,
            "auroc_of_held_out_classes": dict(self.auroc),
            "kept": KEPT,
            "learnt": self.learnt,
            "held_out": len(self.held_out),
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The tensors of calibration.safetensors, without their prefix."""
        arrays: dict[str, NDArray[Any]] = {
            "kind": np.array(KINDS.index(self.kind)),
            "points": self.place.points,
            "neighbours": np.array(self.place.neighbours),
            "limit": np.array(self.limit),
            "distances": self.held_out,
            "confidences": self.confidences,
            "auroc": np.array([self.auroc.get(kind, np.nan) for kind in KINDS]),
            "learnt": np.array(self.learnt),
        }
        if self.place.centre is not None and self.place.projection is not None:
            arrays |= {"centre": self.place.centre, "projection": self.place.projection}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], width: int) -> ForeignDetector:
        """The inverse of to_arrays for features (N, width); WeightsError where it cannot be."""
        expected = {*_NAMES, *(_PLACED if "projection" in arrays else ())}
        if set(arrays) != expected:
            raise WeightsError(
                f"what tells foreign images has {', '.join(sorted(arrays))}, not "
                f"{', '.join(sorted(expected))}"
            )
        points = arrays["points"]
        if points.ndim != 2 or not len(points):
            raise WeightsError(f"foreign.points has shape {points.shape}, not (points, width)")
        inside = points.shape[1]
        shapes = {"centre": (width,), "projection": (width, inside)}
        fits = all(arrays[name].shape == shapes[name] for name in _PLACED if name in arrays)
        if not fits or ("projection" not in arrays and inside != width):
            raise WeightsError(f"it was fitted to features of another width than {width}")
        numbers = [arrays[name] for name in sorted(expected - {"auroc"})]
        if not all(np.isfinite(array).all() for array in numbers) or not arrays["limit"] > 0:
            raise WeightsError("it has numbers that are not finite, or a limit that is not above 0")
        if not 1 <= arrays["neighbours"] <= len(points):
            raise WeightsError(f"foreign.neighbours is not between 1 and {len(points)}")
        if not 0 <= arrays["kind"] < len(KINDS) or arrays["auroc"].shape != (len(KINDS),):
            raise WeightsError(f"foreign.kind or foreign.auroc is not of {', '.join(KINDS)}")
        scores = dict(zip(KINDS, arrays["auroc"].tolist(), strict=True))
        return cls(
            place=Place(
                kind=KINDS[int(arrays["kind"])],
                points=points,
                neighbours=int(arrays["neighbours"]),
                centre=arrays.get("centre"),
                projection=arrays.get("projection"),
            ),
            limit=float(arrays["limit"]),
            held_out=arrays["distances"],
            confidences=arrays["confidences"],
            auroc={kind: score for kind, score in scores.items() if np.isfinite(score)},
            learnt=int(arrays["learnt"]),
        )


def fit(learnt: Sample, held_out: Sample, confidences: Floats) -> ForeignDetector | None:
    """Choose and fit what tells foreign images; None where the features tell nothing apart.

    Args:
        learnt: images that the network has learnt from, or others of its classes; see `chosen_rows`
            for which.
        held_out: further images of the classes, which the limit is taken from.
        confidences: (N,) the probabilities of the answers for `held_out`.

    Raises ModelError for features that are not finite.
    """
    for sample in (learnt, held_out):
        if not np.isfinite(sample.features).all():
            raise ModelError("The features are not finite: the weights are damaged.")
    if not len(learnt.features) or not len(held_out.features):
        return None
    places = {place.kind: place for place in _places(learnt.features, learnt.labels)}
    if not places:
        return None
    auroc = held_out_classes(learnt, held_out) if len(places) > 1 else {}
    known = {kind: score for kind, score in auroc.items() if kind in places}
    kind = max(known, key=known.__getitem__) if known else next(iter(places))
    place = places[kind]
    distances = place.distances(held_out.features)
    order = np.argsort(distances, kind="stable")
    distances = distances[order]
    limit = float(distances[int(np.ceil(KEPT * len(distances))) - 1]) * (1 + ROUNDING)
    if not limit > 0:
        return None
    return ForeignDetector(
        place=place,
        limit=limit,
        held_out=(distances / limit).astype(np.float32),
        confidences=confidences[order].astype(np.float32),
        auroc=known,
        learnt=len(learnt.features),
    )


def chosen_rows(labels: NDArray[Any], *, by_class: bool) -> NDArray[np.int64]:
    """Rows of at most MOST_IMAGES images, ascending, drawn from a seed.

    `by_class` takes evenly many of each class (the k-th of every class before the k + 1-th of any),
    where an image has one label; otherwise all images are equally likely.
    """
    count = len(labels)
    random = np.random.default_rng(0)
    order = random.permutation(count)
    if count <= MOST_IMAGES:
        return np.arange(count)
    if by_class and labels.ndim == 1:
        place = np.empty(count, np.int64)  # of each image within its class
        seen = np.argsort(labels[order], kind="stable")
        starts = np.searchsorted(labels[order][seen], labels[order][seen])
        place[order[seen]] = np.arange(count) - starts
        order = order[np.argsort(place[order], kind="stable")]
    return np.sort(order[:MOST_IMAGES])


def held_out_classes(learnt: Sample, held_out: Sample) -> dict[DistanceKind, float]:
    """Mean AUROC by kind with which classes left out of `learnt` are told from the others.

    The network has learnt those classes, too, so the numbers flatter; they rank the distances.
    """
    from sklearn.metrics import roc_auc_score

    scores: dict[DistanceKind, list[float]] = {}
    for group in _groups(learnt.labels):
        inside = ~_has_any(learnt.labels, group)
        strange = _has_any(held_out.labels, group)
        if not inside.any() or strange.all() or not strange.any():
            continue
        for place in _places(learnt.features[inside], learnt.labels[inside]):
            score = roc_auc_score(strange, place.distances(held_out.features))
            scores.setdefault(place.kind, []).append(float(score))
    most = max(map(len, scores.values()), default=0)  # a kind that some folds lack is no rival
    return {kind: float(np.mean(each)) for kind, each in scores.items() if len(each) == most}


def _groups(labels: NDArray[Any]) -> Iterator[NDArray[np.int64]]:
    """Up to FOLDS groups of the classes that occur, each of which is held out once."""
    present = np.flatnonzero(labels.any(axis=0)) if labels.ndim > 1 else np.unique(labels)
    shuffled = np.random.default_rng(0).permutation(present)
    folds = min(FOLDS, len(shuffled))
    for fold in range(folds):
        yield shuffled[fold::folds]


def _has_any(labels: NDArray[Any], classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    if labels.ndim > 1:
        return np.asarray(labels[:, classes].any(axis=1), bool)
    return np.isin(labels, classes)


def _places(features: NDArray[np.float32], labels: NDArray[Any]) -> Iterator[Place]:
    """The distances that so many images, of such features, allow."""
    count, width = features.shape
    x = features.astype(np.float64)
    if width * width <= MOST_VALUES and count > 1:
        if labels.ndim == 1:
            place = _class_means(x, labels)
            if place is not None:
                yield place
        centre = x.mean(axis=0)
        projection = whitening(x - centre)
        if projection is not None:
            yield Place(
                kind="gaussian",
                points=np.zeros((1, width), np.float32),
                centre=centre.astype(np.float32),
                projection=projection,
            )
    kept = x[: max(1, MOST_VALUES // width)]
    if np.ptp(kept, axis=0).any() or count == 1:
        yield Place(
            kind="neighbours",
            points=unit(kept).astype(np.float32),
            neighbours=max(1, min(NEIGHBOURS, len(kept) // 10)),
        )


def _class_means(x: Floats, labels: NDArray[np.int64]) -> Place | None:
    """The means of the classes that occur, under the covariance within them.

    None where the classes have too few images for one, or too many means to keep.
    """
    present, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(x) < 2 * len(present) or len(present) * x.shape[1] > MOST_VALUES:
        return None
    means = np.zeros((len(present), x.shape[1]))
    np.add.at(means, numbers, x)
    means /= counts[:, None]
    projection = whitening(x - means[numbers])
    if projection is None:
        return None
    centre = means.mean(axis=0)
    return Place(
        kind="mahalanobis",
        points=((means - centre) @ projection).astype(np.float32),
        centre=centre.astype(np.float32),
        projection=projection,
    )


def whitening(deviations: Floats) -> NDArray[np.float32] | None:
    """(D, D) that gives deviations (N, D) from their means the covariance I, after shrinkage.

    None where there is no deviation.
    """
    from sklearn.covariance import ledoit_wolf

    if not np.ptp(deviations, axis=0).any():
        return None
    covariance, _ = ledoit_wolf(deviations, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    # what is left at rounding's level would be blown up to noise
    least = max(values[-1] * 1e-9, np.finfo(np.float64).tiny)
    return (vectors / np.sqrt(np.maximum(values, least))).astype(np.float32)


def unit(features: Floats) -> Floats:
    """Features (N, D) with length 1 each; one of zeros stays so."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    result: Floats = features / np.where(lengths > 0, lengths, 1.0)
    return result
