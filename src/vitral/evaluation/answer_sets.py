"""Answer sets with a guarantee: split conformal prediction (Vovk et al. 2005, chapter 4).

calibration = SetCalibration.of(logits, labels, fresh=True)   # of images that taught nothing
rule = calibration.rule(0.95, "adaptive")                     # one threshold per class
rule.members(logits)                                          # (N, K): which classes are in a set

A class is in the set of an image where its score, a fixed function of the image and the class, is
at most the threshold. The threshold is the ceil((n + 1) level)-th smallest score that n calibration
images have with their own class. Where those n and a new image are exchangeable, drawn alike from
one supply, the new image's class is in its set with a probability of at least `level`: exactly, for
every n and every network.

The scores are those of the probabilities as the network gives them, without the temperature: that
one is fitted on the same images, and a score may not know them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitral.errors import UsageError, WeightsError
from vitral.evaluation import calibration as calibrating
from vitral.evaluation.intervals import wilson
from vitral.evaluation.score import MOST_CLASSES, Table, lowest, share_line

SetMethod = Literal["adaptive", "least-ambiguous"]
METHODS: tuple[SetMethod, ...] = get_args(SetMethod)
OWN_MISSES = 1  # calibration images of a class that its own threshold leaves out, at least
PENALTY = 0.01  # of RAPS, for each rank after RANKS; Angelopoulos et al. use these on ImageNet
RANKS = 5
LEVEL = 0.95  # of the report of a run
_CHUNK = 1 << 20  # numbers in memory at a time

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SetRule:
    """The thresholds that make the sets of one level by one method.

    Attributes:
        level: the share of images that have their class in the set, at least.
        method: of the scores.
        thresholds: float64 (K,), the highest score that a class is let in with; infinite where
            there are too few images to leave any out.
        own: bool (K,), the classes whose threshold keeps the level among their own images alone.
        images: how many calibration images there were.
        fresh, of_training: as of `SetCalibration`.
    """

    level: float
    method: SetMethod
    thresholds: Floats
    own: NDArray[np.bool_]
    images: int
    fresh: bool
    of_training: bool

    @property
    def enough(self) -> bool:
        """Tell whether there were images enough for this level; otherwise sets hold all classes."""
        return bool(np.isfinite(self.thresholds).any())

    def members(self, logits: ArrayLike) -> NDArray[np.bool_]:
        """Tell which classes are in the set of each image: (N, K) -> bool (N, K).

        The most probable class always is: nobody is helped by an empty set, and it takes nothing
        from the guarantee.
        """
        values = np.asarray(logits, np.float64)
        inside = np.empty(values.shape, bool)
        for rows in _chunks(values):
            inside[rows] = scores(values[rows], self.method) <= self.thresholds
        inside[np.arange(len(values)), values.argmax(axis=1)] = True
        return inside

    def guarantee(self) -> str:
        """Say in one sentence what may be relied on."""
        share = f"{100 * self.level:g} %"
        if not self.enough:
            return (
                f"{share} needs at least {least_images(self.level):,} calibration images and there "
                f"are {self.images:,}, so every set holds all classes; vitral fit takes more"
            )
        alone = int(self.own.sum())
        of_class = " of each class" if self.own.all() else ""
        some = f", in {alone:,} of {len(self.own):,} classes each for itself"
        source = (
            f"from {self.images:,} images that the training did not use"
            if self.fresh
            else f"from {self.images:,} validation images; they also chose the weights, so this "
            f"holds nearly, and with fresh images by vitral fit exactly"
        )
        return (
            f"at least {share} of the images{of_class} have their class in the set"
            f"{some if alone and not of_class else ''} ({source})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the thresholds."""
        return {
            "level": self.level,
            "method": self.method,
            "images": self.images,
            "fresh": self.fresh,
            "enough": self.enough,
            "own_guarantee": int(self.own.sum()),
            "guarantee": self.guarantee(),
        }


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SetCalibration:
    """The scores that calibration images have with their own class; sets of any level follow.

    Attributes:
        labels: int64 (n,), their classes.
        adaptive, least_ambiguous: float64 (n,), by each method.
        classes: K.
        fresh: whether the training did not use them: neither learnt from them, nor chose weights.
        of_training: whether they are those that the training held out.
    """

    labels: Ints
    adaptive: Floats
    least_ambiguous: Floats
    classes: int
    fresh: bool
    of_training: bool

    @classmethod
    def of(
        cls, logits: ArrayLike, labels: ArrayLike, *, fresh: bool, of_training: bool = False
    ) -> SetCalibration:
        """Compute the scores of images: logits (n, K), labels (n,) indices of the true class.

        `fresh` and `of_training` say where they are from.
        """
        values = np.asarray(logits, np.float64)
        truth = np.asarray(labels, np.int64)
        return cls(
            labels=truth,
            adaptive=_of_labels(values, truth, "adaptive"),
            least_ambiguous=_of_labels(values, truth, "least-ambiguous"),
            classes=values.shape[1],
            fresh=fresh,
            of_training=of_training,
        )

    def rule(self, level: float, method: SetMethod) -> SetRule:
        """Find the thresholds of a level, for each class by its own images where it has enough.

        A class has enough where its threshold leaves out one of its images or more: otherwise its
        worst image, perhaps a wrong label, would let it into nearly every set. Where all classes
        have enough, each keeps the level, and so do all together. Where not, the threshold of all
        images stands in, and no class goes below it, so that all together keep the level still.

        Raises UsageError for a level outside (0, 1) and an unknown method.
        """
        check_level(level)
        own_scores = self.adaptive if check_method(method) == "adaptive" else self.least_ambiguous
        overall = quantile(own_scores, level)
        counts = np.bincount(self.labels, minlength=self.classes)
        own = np.array([int(n) - rank(int(n), level) >= OWN_MISSES for n in counts], bool)
        thresholds = np.full(self.classes, overall)
        for k in np.flatnonzero(own):
            each = quantile(own_scores[self.labels == k], level)
            thresholds[k] = each if own.all() else max(each, overall)
        return SetRule(
            level=level,
            method=method,
            thresholds=thresholds,
            own=own,
            images=len(self.labels),
            fresh=self.fresh,
            of_training=self.of_training,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of what it rests on."""
        return {"images": len(self.labels), "fresh": self.fresh}

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Name the values as the artifact keeps them."""
        return {
            "labels": self.labels.astype(np.int32),
            "adaptive": self.adaptive,
            "least_ambiguous": self.least_ambiguous,
            "origin": np.array([self.fresh, self.of_training], np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], classes: int) -> SetCalibration:
        """Read what `to_arrays` named; WeightsError where it does not fit K `classes`."""
        names = {"labels", "adaptive", "least_ambiguous", "origin"}
        if set(arrays) != names:
            raise WeightsError(f"answer sets are kept as {sorted(names)}, not {sorted(arrays)}")
        labels = arrays["labels"].astype(np.int64)
        adaptive = arrays["adaptive"].astype(np.float64)
        least = arrays["least_ambiguous"].astype(np.float64)
        origin = arrays["origin"]
        whole = labels.ndim == 1 and labels.shape == adaptive.shape == least.shape
        whole = whole and origin.shape == (2,)
        finite = whole and np.isfinite(adaptive).all() and np.isfinite(least).all()
        if not finite or (labels.size and not 0 <= labels.min() <= labels.max() < classes):
            raise WeightsError(f"the scores of its answer sets are not of {classes} classes")
        return cls(
            labels=labels,
            adaptive=adaptive,
            least_ambiguous=least,
            classes=classes,
            fresh=bool(origin[0]),
            of_training=bool(origin[1]),
        )


def check_level(level: float) -> None:
    """Raise UsageError unless a level is a share above 0 and below 1."""
    if not 0 < level < 1:
        hint = f" {level:g} % is {level / 100:g}." if 1 < level < 100 else ""
        raise UsageError(
            f"The level of answer sets is the share of images that have their class in the set, "
            f"above 0 and below 1 such as 0.95, not {level:g}.{hint}"
        )


def check_method(method: str) -> SetMethod:
    """Give the method of this name; UsageError where there is none."""
    for known in METHODS:
        if method == known:
            return known
    raise UsageError(f"Answer sets are made by one of {', '.join(METHODS)}, not '{method}'.")


def rank(images: int, level: float) -> int:
    """Compute ceil((n + 1) level), exactly: 0.95 means 95 hundredths, not the double below it."""
    return math.ceil((images + 1) * Fraction(str(float(level))))


def least_images(level: float) -> int:
    """Compute the fewest calibration images of which a threshold may leave any class out."""
    share = Fraction(str(float(level)))
    return math.ceil(share / (1 - share))


def quantile(values: Floats, level: float) -> float:
    """Find the `rank`-th smallest of n scores; infinite where that is more than n."""
    place = rank(len(values), level)
    if place > len(values):
        return math.inf
    return float(np.partition(values, place - 1)[place - 1])


def scores(logits: Floats, method: SetMethod) -> Floats:
    """Score how ill each class goes with each image: (N, K) -> (N, K).

    "least-ambiguous" (LAC; Sadinle et al. 2019) is 1 - p of the class: the smallest sets on the
    average. "adaptive" (RAPS; Angelopoulos et al. 2021) is the probability of all classes that
    are more probable, and 0.01 for each rank after the fifth, against long tails: sets grow with
    the doubt about the image. The papers add a random share of the class's own p; none is added
    here. It would only trim the sets to the very level, and the same picture would get another set
    the next time; a score without it keeps the guarantee as well.
    """
    chances = calibrating.softmax(logits)
    match method:
        case "least-ambiguous":
            return np.asarray(1 - chances, np.float64)
        case "adaptive":
            order = np.argsort(-logits, axis=1, kind="stable")  # as the answers are ranked
            ordered = np.take_along_axis(chances, order, axis=1)
            above = np.zeros_like(ordered)
            above[:, 1:] = ordered.cumsum(axis=1)[:, :-1]
            above += PENALTY * np.maximum(np.arange(logits.shape[1]) + 1 - RANKS, 0)
            result = np.empty_like(above)
            np.put_along_axis(result, order, above, axis=1)
            return result


def _of_labels(logits: Floats, labels: Ints, method: SetMethod) -> Floats:
    result = np.empty(len(logits))
    for rows in _chunks(logits):
        each = scores(logits[rows], method)
        result[rows] = each[np.arange(len(each)), labels[rows]]
    return result


def _chunks(logits: Floats) -> Iterator[slice]:
    rows = max(1, _CHUNK // max(logits.shape[1], 1))
    for start in range(0, len(logits), rows):
        yield slice(start, start + rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCoverage:
    """The coverage of the images of one class, and the size of their sets.

    Attributes:
        name: the class; samples: its images; covered: those with it in their set.
        coverage, interval: their share and its Wilson 95 % interval; None without images.
        mean_size: of their sets; None without images.
        own: whether the level is kept for this class by itself.
    """

    name: str
    samples: int
    covered: int
    coverage: float | None
    interval: tuple[float, float] | None
    mean_size: float | None
    own: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SetEvaluation:
    """The coverage and the sizes of the answer sets of images.

    Attributes:
        rule: as of `SetRule.to_dict`.
        samples, covered: images, and those with their class in their set.
        coverage, interval: the share and its Wilson 95 % interval.
        mean_size: classes in a set, on the average.
        sizes: how many sets have 1, 2, ... K classes.
        cross_fitted: whether the calibration images are these very ones; each fifth of them then
            got its sets by the other four.
        per_class: one per class.
    """

    rule: Mapping[str, Any]
    samples: int
    covered: int
    coverage: float
    interval: tuple[float, float]
    mean_size: float
    sizes: tuple[int, ...]
    cross_fitted: bool
    per_class: tuple[ClassCoverage, ...]

    def lines(self) -> Iterator[str | Table]:
        """Write for a terminal what was promised, what was kept, and each class."""
        yield f"sets       {self.rule['method']}: {self.rule['guarantee']}"
        crossed = ", cross-fitted" if self.cross_fitted else ""
        counted = f"{self.covered:,} of {self.samples:,}{crossed}"
        yield f"{share_line('coverage', self.coverage, self.interval, 9)}  {counted}"
        alone = 100 * self.sizes[0] / self.samples
        yield f"set size   {self.mean_size:.2f} classes on average; {alone:.1f} % have one"
        shown = lowest(self.per_class, lambda each: each.coverage)
        title = "sets of each class"
        if len(self.per_class) > MOST_CLASSES:
            title = f"sets of the {len(shown)} classes of the lowest coverage"
        yield Table(
            title=f"{title}, with 95 % intervals",
            headings=("class", "images", "coverage", "set size", "guarantee"),
            rows=tuple(_row(each) for each in shown),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **self.rule,
            "samples": self.samples,
            "covered": self.covered,
            "coverage": self.coverage,
            "interval": list(self.interval),
            "mean_size": self.mean_size,
            "sizes": list(self.sizes),
            "cross_fitted": self.cross_fitted,
            "per_class": [
                {
                    "name": each.name,
                    "samples": each.samples,
                    "covered": each.covered,
                    "coverage": each.coverage,
                    "interval": None if each.interval is None else list(each.interval),
                    "mean_size": each.mean_size,
                    "own_guarantee": each.own,
                }
                for each in self.per_class
            ],
        }


def evaluate_sets(
    logits: ArrayLike,
    labels: ArrayLike,
    keys: Sequence[str],
    classes: Sequence[str],
    rule: SetRule,
    *,
    cross_fit: bool = False,
) -> SetEvaluation:
    """Count how often the class of an image is in its set, and how large the sets are.

    Args:
        logits: (N, K), N >= 1; labels: (N,) indices of the true class; keys: N names, which decide
            the folds; classes: K names.
        rule: of the sets.
        cross_fit: whether the rule comes from these very images: each fifth of them then gets its
            sets by the others, since an image's own score would help it in.
    """
    values = np.asarray(logits, np.float64)
    truth = np.asarray(labels, np.int64)
    crossed = cross_fit and len(truth) > 1
    if crossed:
        inside = np.empty(values.shape, bool)
        fold = calibrating.folds(keys)
        for number in np.unique(fold):
            here = fold == number
            others = SetCalibration.of(values[~here], truth[~here], fresh=rule.fresh)
            inside[here] = others.rule(rule.level, rule.method).members(values[here])
    else:
        inside = rule.members(values)
    hit = inside[np.arange(len(truth)), truth]
    size = inside.sum(axis=1)
    count = len(classes)
    samples = np.bincount(truth, minlength=count)
    covered = np.bincount(truth, hit, minlength=count).astype(np.int64)
    total = np.bincount(truth, size, minlength=count)
    return SetEvaluation(
        rule=rule.to_dict(),
        samples=len(truth),
        covered=int(hit.sum()),
        coverage=float(hit.mean()),
        interval=wilson(int(hit.sum()), len(truth)),
        mean_size=float(size.mean()),
        sizes=tuple(np.bincount(size, minlength=count + 1)[1:].tolist()),
        cross_fitted=crossed,
        per_class=tuple(
            ClassCoverage(
                name=name,
                samples=int(samples[k]),
                covered=int(covered[k]),
                coverage=float(covered[k] / samples[k]) if samples[k] else None,
                interval=wilson(int(covered[k]), int(samples[k])) if samples[k] else None,
                mean_size=float(total[k] / samples[k]) if samples[k] else None,
                own=bool(rule.own[k]),
            )
            for k, name in enumerate(classes)
        ),
    )


def _row(each: ClassCoverage) -> tuple[str, ...]:
    if each.coverage is None or each.interval is None:
        return each.name, "0", "-", "-", "its own" if each.own else "shared"
    low, high = (100 * bound for bound in each.interval)
    return (
        each.name,
        f"{each.samples:,}",
        f"{100 * each.coverage:.1f} % ({low:.1f} to {high:.1f})",
        f"{each.mean_size:.2f}",
        "its own" if each.own else "shared",
    )
