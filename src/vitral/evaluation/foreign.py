"""Foreign images show none of the classes; their features lie far from all that were learnt.

detector = fit(learnt, held_out)          # Samples of images with their labels
detector.distances(sample.detector_features) > 1     # (N,) whether each is foreign

A distance of 1 is the limit that 95 of 100 held-out images keep. Which distance tells best is
chosen on classes that are held out in turn, so that no foreign image is needed:

- mahalanobis: to the nearest class mean, under the covariance within the classes (Lee et al. 2018),
  which is shrunk as Ledoit and Wolf (2004) do;
- gaussian: to the mean of all, under the covariance of all;
- neighbours: of features of unit length, to the k-th nearest that was learnt (Sun et al. 2022).

To it three distances of the patch tokens of an image are added, which no held-out class could
choose: classes differ late, drawings, digits and textures early. Two are of the tokens that enter
the first block, of their mean and of their deviation (what is drawn on one colour has little, what
was enlarged has less); the third is of both, late in the network.
"""
# ruff: noqa: PLC0415 - scikit-learn takes seconds to import, which fitting alone should pay

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitral.errors import ModelError, WeightsError
from vitral.specs import ModelSpec

DistanceKind = Literal["mahalanobis", "gaussian", "neighbours"]
Floats = NDArray[np.float64]

KINDS: tuple[DistanceKind, ...] = ("mahalanobis", "gaussian", "neighbours")
SENTENCES: Mapping[DistanceKind, str] = {
    "mahalanobis": "the distances of features to their class mean and of patches to the whole mean",
    "gaussian": "the distances of features and of patches to the mean of all",
    "neighbours": "the distances of features to the nearest and of patches to the mean of all",
}
KEPT = 0.95  # share of the held-out images that are not foreign
MOST_IMAGES = 5_000  # that are looked at on either side: the cost is bounded whatever the data
MOST_VALUES = 1 << 22  # of one matrix in the artifact, 16 MB
FOLDS = 5  # groups of classes that are held out in turn
NEIGHBOURS = 10  # the k of the k-th nearest, fewer of fewer than 100 images
FEW = 20  # held-out images, below which the limit is the farthest of them
ROUNDING = 1e-4  # of the limit: another batch computes a feature a little differently

_NUMBERS = 1 << 22  # distances in memory at a time
# the columns of each part among the features of patches, in widths of the network
_PATCH_COLUMNS: Mapping[str, tuple[int, int]] = {
    "early": (0, 1),
    "deviation": (1, 2),
    "late": (2, 4),
    "last": (4, 6),
}
_PATCH_WIDTHS = 6
_NAMES = ("limit", "distances", "confidences", "auroc", "learnt")
_OF_PART = ("kind", "points", "neighbours", "spread")
_PROJECTED = ("centre", "projection")  # beside them, unless the features get unit length


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sample:
    """A sample of labelled images, and the outputs of a network for them.

    Attributes:
        features: float32 (N, D), what the head reads.
        logits: float32 (N, K).
        labels: int (N,), or bool (N, K) where an image has several.
        patches: float32 (N, 6 E), the means and deviations of the patch tokens.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.bool_]
    patches: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        outputs: NDArray[np.float32],
        labels: NDArray[np.int64] | NDArray[np.bool_],
        spec: ModelSpec,
    ) -> Sample:
        """Take apart what `ViT.logits_and_detector_features` gave, side by side in `outputs`."""
        places = [spec.classes, spec.classes + spec.read_width]
        logits, features, patches = np.split(outputs, places, axis=1)
        return cls(features=features, logits=logits, labels=labels, patches=patches)

    @property
    def detector_features(self) -> NDArray[np.float32]:
        """Features and those of patches side by side, as a network gives them."""
        return np.concatenate([self.features, self.patches], axis=1)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Part:
    """A part of a distance, brought to the scale of the others.

    Attributes:
        space: where it is measured.
        spread: how far above the median KEPT of the held-out images lie at most; the unit.
    """

    space: FeatureSpace
    spread: float

    def distances(self, features: NDArray[np.float32]) -> Floats:
        """Compute how far features (N, D) lie, (N,), in spreads."""
        return self.space.distances(features) / self.spread

    @classmethod
    def fit(cls, space: FeatureSpace, features: NDArray[np.float32]) -> Part | None:
        """Scale a space by held-out features; None where they all lie alike."""
        distances = np.sort(space.distances(features))
        middle = float(np.median(distances))
        # of a single image there is no spread, and of many that are alike
        spread = float(distances[_rank(len(distances))]) - middle or middle
        return cls(space=space, spread=spread) if spread > 0 else None

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The tensors of a part."""
        arrays: dict[str, NDArray[Any]] = {
            "kind": np.array(KINDS.index(self.space.kind)),
            "points": self.space.points,
            "neighbours": np.array(self.space.neighbours),
            "spread": np.array(self.spread),
        }
        if self.space.centre is not None and self.space.projection is not None:
            arrays |= {"centre": self.space.centre, "projection": self.space.projection}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Part:
        """The inverse of to_arrays; WeightsError where it cannot be."""
        expected = {*_OF_PART, *(_PROJECTED if "projection" in arrays else ())}
        if set(arrays) != expected:
            raise WeightsError(
                f"a distance has {', '.join(sorted(arrays))}, not {', '.join(sorted(expected))}"
            )
        points = arrays["points"]
        if points.ndim != 2 or not len(points):
            raise WeightsError(f"points of shape {points.shape}, not (points, width)")
        if not 1 <= arrays["neighbours"] <= len(points):
            raise WeightsError(f"neighbours is not between 1 and {len(points)}")
        if not 0 <= arrays["kind"] < len(KINDS) or not arrays["spread"] > 0:
            raise WeightsError(f"kind is not of {', '.join(KINDS)}, or spread is not above 0")
        if "centre" in arrays:
            shape = (*arrays["centre"].shape, points.shape[1])
            if arrays["projection"].shape != shape:
                raise WeightsError(f"projection of another shape than {shape}")
        return cls(
            space=FeatureSpace(
                kind=KINDS[int(arrays["kind"])],
                points=points,
                neighbours=int(arrays["neighbours"]),
                centre=arrays.get("centre"),
                projection=arrays.get("projection"),
            ),
            spread=float(arrays["spread"]),
        )


def _rank(count: int) -> int:
    """Which of so many ascending distances KEPT of them do not exceed."""
    return int(np.ceil(KEPT * count)) - 1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FeatureSpace:
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

    @property
    def width(self) -> int:
        """Number of values of a feature."""
        return self.points.shape[1] if self.centre is None else len(self.centre)

    def distances(self, features: NDArray[np.float32]) -> Floats:
        """Compute how far features (N, D) lie from the points: (N,)."""
        points = self.points.astype(np.float64)
        lengths = (points**2).sum(axis=1)
        rows = max(1, _NUMBERS // max(len(points), features.shape[1]))
        result = np.empty(len(features))
        for start in range(0, len(features), rows):
            x = self._projected(features[start : start + rows].astype(np.float64))
            squares = (x**2).sum(axis=1, keepdims=True) + lengths - 2 * x @ points.T
            nth = np.partition(squares, self.neighbours - 1, axis=1)[:, self.neighbours - 1]
            result[start : start + rows] = np.sqrt(np.maximum(nth, 0))
        return result

    def _projected(self, features: Floats) -> Floats:
        if self.centre is None or self.projection is None:
            return unit(features)
        placed: Floats = (features - self.centre) @ self.projection.astype(np.float64)
        return placed


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ForeignDetector:
    """A detector of images that show none of the classes.

    Attributes:
        head: the distance of what the head reads.
        patches: those of the patch tokens, by where they are taken; empty where they tell nothing
            apart, and of older artifacts "early" alone. A drawing or a digit on black differs in
            its colours and edges, which the head of a network that never saw any has learnt to
            pass over. "late" and "last" are one distance, under a covariance in two blocks.
        limit: the sum of all that KEPT of the held-out images do not exceed; `distances` count
            in it.
        held_out: (M,) the distances of held-out images, ascending.
        confidences: (M,) the probabilities of their answers.
        auroc: by kind, how well held-out classes were told from the others by what the head reads;
            empty where there was nothing to choose by.
        learnt: images that the spaces were made from.
    """

    head: Part
    patches: Mapping[str, Part]
    limit: float
    held_out: NDArray[np.float32]
    confidences: NDArray[np.float32]
    auroc: Mapping[DistanceKind, float]
    learnt: int

    @property
    def kind(self) -> DistanceKind:
        """Name the distance of what the head reads."""
        return self.head.space.kind

    def distances(self, detector_features: NDArray[np.float32]) -> Floats:
        """Compute how far images lie from what was learnt, (N,); foreign above 1.

        `detector_features` are (N, D + 6 E): what the head reads, and the features of patches.
        """
        width = self.head.space.width
        total = self.head.distances(detector_features[:, :width])
        return (total + _patch_distances(self.patches, detector_features[:, width:])) / self.limit

    @property
    def summary(self) -> str:
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
            "early": "early" in self.patches,
            "patches": list(self.patches),
            "auroc_of_held_out_classes": dict(self.auroc),
            "kept": KEPT,
            "learnt": self.learnt,
            "held_out": len(self.held_out),
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The tensors of calibration.safetensors, without their prefix."""
        arrays: dict[str, NDArray[Any]] = {
            "limit": np.array(self.limit),
            "distances": self.held_out,
            "confidences": self.confidences,
            "auroc": np.array([self.auroc.get(kind, np.nan) for kind in KINDS]),
            "learnt": np.array(self.learnt),
        }
        for name, part in ({"head": self.head} | dict(self.patches)).items():
            arrays |= {f"{name}.{key}": array for key, array in part.to_arrays().items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], width: int) -> ForeignDetector:
        """The inverse of to_arrays for a head that reads (N, width); WeightsError where it cannot.

        Raises WeightsError, too, for numbers that are not finite.
        """
        parts: dict[str, dict[str, NDArray[Any]]] = {"": {}, "head": {}}
        for name, array in arrays.items():
            part, _, key = name.rpartition(".")
            parts.setdefault(part, {})[key] = array
        whole = parts[""]
        if set(whole) != set(_NAMES) or not set(parts) <= {"", "head", *_PATCH_COLUMNS}:
            raise WeightsError(
                f"what tells foreign images has {', '.join(sorted(arrays))}, not "
                f"{', '.join(_NAMES)} and those of its distances"
            )
        if whole["auroc"].shape != (len(KINDS),):
            raise WeightsError(f"foreign.auroc is not of {', '.join(KINDS)}")
        numbers = [array for name, array in arrays.items() if name != "auroc"]
        if not all(np.isfinite(array).all() for array in numbers) or not whole["limit"] > 0:
            raise WeightsError("it has numbers that are not finite, or a limit that is not above 0")
        head = Part.from_arrays(parts["head"])
        if head.space.width != width:
            raise WeightsError(f"it was fitted to features of another width than {width}")
        scores = dict(zip(KINDS, whole["auroc"].tolist(), strict=True))
        return cls(
            head=head,
            patches={
                name: Part.from_arrays(parts[name]) for name in _PATCH_COLUMNS if name in parts
            },
            limit=float(whole["limit"]),
            held_out=whole["distances"],
            confidences=whole["confidences"],
            auroc={kind: score for kind, score in scores.items() if np.isfinite(score)},
            learnt=int(whole["learnt"]),
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
        if not np.isfinite(sample.detector_features).all():
            raise ModelError("The features are not finite: the weights are damaged.")
    if not len(learnt.features) or not len(held_out.features):
        return None
    spaces = {space.kind: space for space in _spaces(learnt.features, learnt.labels)}
    if not spaces:
        return None
    auroc = held_out_classes(learnt, held_out) if len(spaces) > 1 else {}
    known = {kind: score for kind, score in auroc.items() if kind in spaces}
    kind = max(known, key=known.__getitem__) if known else next(iter(spaces))
    head = Part.fit(spaces[kind], held_out.features)
    if head is None:
        return None
    patches = _patch_parts(learnt.patches, held_out.patches)
    distances = head.distances(held_out.features) + _patch_distances(patches, held_out.patches)
    order = np.argsort(distances, kind="stable")
    distances = distances[order]
    limit = float(distances[_rank(len(distances))]) * (1 + ROUNDING)
    if not limit > 0:
        return None
    return ForeignDetector(
        head=head,
        patches=patches,
        limit=limit,
        held_out=(distances / limit).astype(np.float32),
        confidences=confidences[order].astype(np.float32),
        auroc=known,
        learnt=len(learnt.features),
    )


def _columns(name: str, patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """The features of patches that a part is measured by."""
    width = patches.shape[1] // _PATCH_WIDTHS
    first, end = _PATCH_COLUMNS[name]
    return patches[:, first * width : end * width]


def _patch_parts(learnt: NDArray[np.float32], held_out: NDArray[np.float32]) -> dict[str, Part]:
    """The distances of patches to the mean of all, of those parts that have any."""
    parts: dict[str, Part] = {}
    for name in _PATCH_COLUMNS:
        features = _columns(name, learnt)
        count, width = features.shape
        if count < 2 or not 0 < width * width <= MOST_VALUES:
            continue
        space = _gaussian(features.astype(np.float64))
        part = None if space is None else Part.fit(space, _columns(name, held_out))
        if part is not None:
            parts[name] = part
    deep = [name for name in ("late", "last") if name in parts]
    if not deep:
        return parts
    spaces = {name: parts[name].space for name in deep}
    together = np.sort(
        _together([spaces[name].distances(_columns(name, held_out)) for name in deep])
    )
    for name in deep:  # one unit for both
        spread = float(together[_rank(len(together))]) - float(np.median(together))
        parts[name] = Part(space=spaces[name], spread=spread or parts[name].spread)
    return parts


def _together(distances: Sequence[Floats]) -> Floats:
    """The distance under a covariance in blocks, of the distance in each."""
    return np.asarray(np.hypot.reduce(distances))


def _patch_distances(parts: Mapping[str, Part], patches: NDArray[np.float32]) -> Floats:
    """The sum of the distances of patches, (N,); what is late and what is last are one."""
    distances = {name: part.distances(_columns(name, patches)) for name, part in parts.items()}
    deep = [distances.pop(name) for name in ("late", "last") if name in distances]
    total = np.zeros(len(patches)) + sum(distances.values())
    return total + _together(deep) if deep else total


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
        for space in _spaces(learnt.features[inside], learnt.labels[inside]):
            score = roc_auc_score(strange, space.distances(held_out.features))
            scores.setdefault(space.kind, []).append(float(score))
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


def _spaces(features: NDArray[np.float32], labels: NDArray[Any]) -> Iterator[FeatureSpace]:
    """The distances that so many images, of such features, allow."""
    count, width = features.shape
    x = features.astype(np.float64)
    if width * width <= MOST_VALUES and count > 1:
        if labels.ndim == 1:
            space = _class_means(x, labels)
            if space is not None:
                yield space
        space = _gaussian(x)
        if space is not None:
            yield space
    kept = x[: max(1, MOST_VALUES // width)]
    if np.ptp(kept, axis=0).any() or count == 1:
        yield FeatureSpace(
            kind="neighbours",
            points=unit(kept).astype(np.float32),
            neighbours=max(1, min(NEIGHBOURS, len(kept) // 10)),
        )


def _gaussian(x: Floats) -> FeatureSpace | None:
    """The mean of all, under the covariance of all; None where there is no deviation."""
    centre = x.mean(axis=0)
    projection = whitening(x - centre)
    if projection is None:
        return None
    return FeatureSpace(
        kind="gaussian",
        points=np.zeros((1, x.shape[1]), np.float32),
        centre=centre.astype(np.float32),
        projection=projection,
    )


def _class_means(x: Floats, labels: NDArray[np.int64]) -> FeatureSpace | None:
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
    return FeatureSpace(
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


def unit(features: NDArray[Any]) -> NDArray[Any]:
    """Features (N, D) with length 1 each; one of zeros stays so."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(lengths > 0, lengths, 1), features.dtype)
