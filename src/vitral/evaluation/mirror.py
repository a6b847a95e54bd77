"""Find classes that a mirror turns into one another, before flips make them unlearnable.

    found = look_in_the_mirror(data.train, data.classes, recipe.images)      # None: too few images

A network that learns from flipped images is told that both sides are alike, so that of two classes
such as "left" and "right" it can only guess, and its accuracy on mirrored validation images is that
on the images themselves. Whether the classes *can* be told apart is therefore asked of a quick
probe that sees no flips: random patches of the images as filters, pooled in quadrants (Coates, Ng
and Lee 2011), and ridge regression. Every image is answered by a probe that has not learnt from it,
as it is and mirrored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d

from vitral import machine
from vitral.data.sources import Split
from vitral.errors import DataError
from vitral.evaluation.intervals import wilson
from vitral.evaluation.score import Prediction
from vitral.images.decode import Picture
from vitral.images.preprocess import pixels
from vitral.specs import ImageSpec
from vitral.wording import listed

MOST = 1000  # images that are looked at
FEWEST = 12  # of a class, below which nothing can be said of it
_SIDE = 32  # pixels of the images for the probe
_PATCH = 12
_FILTERS = 256
_QUIET = 0.001  # of a patch's variance, beside which noise is none
_FOLDS = 8
_STRENGTHS = (0.003, 0.03, 0.3, 3.0)  # of the ridge; the inputs have a mean square of 1
_BATCH = 4  # whose maps stay in the cache: four times as quick as 64
_SIDED = 0.7  # share of what is named rightly that is still, mirrored, below which it is said
_CHANCE = 0.005  # of a remark that is wrong, over all classes

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MirroredPair:
    """Two classes of which the mirrored images are taken for the other.

    Attributes:
        first, second: their names.
        images: of both that the probe was asked about.
        told_apart: share of them that it names rightly as they are.
        swapped: share of them that it takes for the other class mirrored.
    """

    first: str
    second: str
    images: int
    told_apart: float
    swapped: float


@dataclass(frozen=True, slots=True)
class Mirror:
    """The answers of a probe for images as they are and mirrored.

    Attributes:
        pairs: classes that a mirror turns into one another, the surest first.
        images: that were looked at.
        accuracy: share named rightly as they are.
        mirrored: share named rightly mirrored.
    """

    pairs: tuple[MirroredPair, ...]
    images: int
    accuracy: float
    mirrored: float

    @property
    def sentence(self) -> str:
        """Says what flips would do and what to set; "" where they do no harm that can be seen."""
        if self.pairs:
            named = listed((f"'{pair.first}' and '{pair.second}'" for pair in self.pairs), 3)
            sure = self.pairs[0]
            return (
                f"A mirror turns classes into one another: {named}. A quick probe tells "
                f"{100 * sure.told_apart:.0f} % of {sure.images} images apart, and takes "
                f"{100 * sure.swapped:.0f} % for the other class mirrored; learnt with flips they "
                f"cannot be told apart: --set augment.flip=0."
            )
        low = wilson(round(self.accuracy * self.images), self.images)[0]
        high = wilson(round(self.mirrored * self.images), self.images)[1]
        if high < _SIDED * low:
            return (
                f"The classes look otherwise in a mirror: a quick probe names "
                f"{100 * self.accuracy:.0f} % of {self.images} images rightly, and mirrored "
                f"{100 * self.mirrored:.0f} %. Where no mirrored images occur, flips only cost: "
                f"--set augment.flip=0."
            )
        return ""


def mirrored_mistakes(
    predictions: Sequence[Prediction], pairs: Iterable[tuple[str, str]]
) -> str | None:
    """Counts the mistakes between classes that a mirror turns into one another; None without any.

    Args:
        predictions: one label each.
        pairs: of class names.
    """
    either = {name for pair in pairs for name in (pair, pair[::-1])}
    wrong = [answer for answer in predictions if not answer.correct]
    between = [answer for answer in wrong if (answer.label, answer.answer) in either]
    if not between:
        return None
    often = Counter(tuple(sorted((answer.label, answer.answer))) for answer in between)
    (first, second), _ = often.most_common(1)[0]
    return (
        f"{len(between):,} of {len(wrong):,} mistakes are between classes that a mirror turns into "
        f"one another, such as '{first}' and '{second}'; without flips: --set augment.flip=0"
    )


def look_in_the_mirror(split: Split, classes: Sequence[str], images: ImageSpec) -> Mirror | None:
    """Asks a probe for images of a split as they are and mirrored, the same for the same split.

    None where nothing can be said: images without labels or from far away, fewer than two classes
    of FEWEST images among MOST, or images that cannot be read.

    Args:
        split: with labels, one to an image or several.
        classes: their names.
        images: how the network sees them; here they are smaller.
    """
    rows = _chosen(split, len(classes))
    if rows is None:
        return None
    views, rows = _views(split, rows, images)
    truth = split.labels[rows]
    targets = np.eye(len(classes))[truth] if truth.ndim == 1 else truth.astype(np.float64)
    if len(rows) < 2 * FEWEST:
        return None
    filters, offset = _filters(views)
    features = _features(views, filters, offset)
    of_mirrored = _features(views.flip(-1), filters, offset)
    as_they_are, mirrored = _scores(features, of_mirrored, targets)
    return Mirror(
        pairs=_pairs(as_they_are, mirrored, targets > 0, classes),
        images=len(rows),
        accuracy=float(targets[np.arange(len(rows)), as_they_are.argmax(1)].mean()),
        mirrored=float(targets[np.arange(len(rows)), mirrored.argmax(1)].mean()),
    )


def _chosen(split: Split, classes: int) -> NDArray[np.int64] | None:
    """Rows of the split, evenly of the classes, in a random order that is always the same."""
    labels = split.labels
    single = labels.ndim == 1
    if split.shards is not None or classes < 2 or (single and (labels < 0).any()):
        return None
    counts = np.bincount(labels, minlength=classes) if single else labels.sum(axis=0)
    each = max(FEWEST, MOST // classes)
    if (counts >= FEWEST).sum() < 2 or classes * FEWEST > MOST:
        return None
    order = np.random.default_rng(0).permutation(len(labels))
    taken: list[NDArray[np.int64]] = []
    for number in range(classes):
        of_class = labels[order] == number if single else labels[order, number]
        taken.append(order[of_class][:each])
    chosen = np.unique(np.concatenate(taken))
    return order[np.isin(order, chosen)][:MOST]


def _views(
    split: Split, rows: NDArray[np.int64], images: ImageSpec
) -> tuple[Tensor, NDArray[np.int64]]:
    """Small evaluation views, float (n, 3, side, side) from 0 to 1, and the rows that were read."""
    small = replace(images, size=(_SIDE, _SIDE), bands=None, value_range=None)

    def view(row: int) -> Tensor | None:
        try:
            image = Picture(split.read(row), images).decode((2 * _SIDE, 2 * _SIDE))
            return pixels(np.asarray(image), small)
        except DataError:
            return None  # the training says which files it cannot read

    with ThreadPoolExecutor(min(16, machine.cores())) as threads:
        seen = list(threads.map(view, rows.tolist()))
    readable = [number for number, each in enumerate(seen) if each is not None]
    tensors = [each for each in seen if each is not None]
    stacked = torch.stack(tensors) if tensors else torch.empty(0, 3, _SIDE, _SIDE)
    return stacked.float() / 255, rows[readable]


def _filters(views: Tensor) -> tuple[Tensor, Tensor]:
    """Random patches of the views, whitened: what (filters, values of a patch) and an offset.

    The answer of a filter to a patch of mean 0 and deviation 1 is filter · patch - offset.
    """
    generator = torch.Generator().manual_seed(0)
    count = 20 * _FILTERS
    which = torch.randint(len(views), (count,), generator=generator).tolist()
    top, left = torch.randint(_SIDE - _PATCH + 1, (2, count), generator=generator).tolist()
    patches = torch.stack(
        [
            views[i, :, y : y + _PATCH, x : x + _PATCH].flatten()
            for i, y, x in zip(which, top, left, strict=True)
        ]
    )
    patches -= patches.mean(1, keepdim=True)
    patches /= (patches.var(1, keepdim=True) + _QUIET).sqrt()
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
    whiten = vectors @ torch.diag((values.clamp(min=0) + 0.1).rsqrt()) @ vectors.T
    white = (patches - mean) @ whiten
    busy = white[white.norm(dim=1).argsort(descending=True)[: count // 2]]  # not of plain grounds
    chosen = busy[:: len(busy) // _FILTERS][:_FILTERS]
    filters = (chosen / chosen.norm(dim=1, keepdim=True)) @ whiten
    return filters, filters @ mean


def _features(views: Tensor, filters: Tensor, offset: Tensor) -> Floats:
    """(n, 8 * filters): how much of each filter, and of its negative, is in each quadrant."""
    kernels = filters.unflatten(1, (3, _PATCH, _PATCH))
    size = filters.shape[1]
    parts = []
    for some in views.split(_BATCH):
        sums = torch.stack([some.sum(1), some.square().sum(1)], dim=1)
        mean, square = avg_pool2d(sums, _PATCH, stride=1).div(3).split(1, dim=1)
        variance = (square - mean.square()) * size / (size - 1)
        spread = (variance.clamp(min=0) + _QUIET).sqrt()
        answers = conv2d(some, kernels) - mean * filters.sum(1).view(1, -1, 1, 1)
        answers = answers / spread - offset.view(1, -1, 1, 1)
        both = torch.cat([(answers - 0.5).clamp(min=0), (-answers - 0.5).clamp(min=0)], dim=1)
        parts.append(adaptive_avg_pool2d(both, 2).flatten(1))
    return torch.cat(parts).double().numpy()


def _scores(features: Floats, mirrored: Floats, targets: Floats) -> tuple[Floats, Floats]:
    """Scores (n, classes) of each image, and of it mirrored, by a probe of the other folds.

    Kernel ridge regression of the strength that errs least on the images as they are.
    """
    count = len(features)
    plain = np.empty((len(_STRENGTHS), *targets.shape))
    flipped = np.empty_like(plain)
    for number in range(_FOLDS):
        inside = np.arange(count) % _FOLDS == number  # the order is a random one
        mean = features[~inside].mean(axis=0)
        scale = (features[~inside].std(axis=0) + 1e-3) * features.shape[1] ** 0.5
        inputs = (features[~inside] - mean) / scale
        values, vectors = np.linalg.eigh(inputs @ inputs.T)
        prior = targets[~inside].mean(axis=0)
        turned = vectors.T @ (targets[~inside] - prior)
        own = ((features[inside] - mean) / scale) @ inputs.T @ vectors
        of_mirrored = ((mirrored[inside] - mean) / scale) @ inputs.T @ vectors
        for i, strength in enumerate(_STRENGTHS):
            duals = turned / (values + strength)[:, None]
            plain[i, inside] = own @ duals + prior
            flipped[i, inside] = of_mirrored @ duals + prior
    best = int(np.square(plain - targets).mean(axis=(1, 2)).argmin())
    return plain[best], flipped[best]


def _pairs(
    plain: Floats, mirrored: Floats, truth: NDArray[np.bool_], classes: Sequence[str]
) -> tuple[MirroredPair, ...]:
    """Pairs of classes that the probe tells apart, and takes for one another when mirrored."""
    pairs: list[MirroredPair] = []
    z = NormalDist().inv_cdf(1 - _CHANCE / len(classes))
    guesses = mirrored.argmax(1)
    counts = [np.bincount(guesses[having], minlength=len(classes)) for having in truth.T]
    taken_for = [int(count.argmax()) for count in counts]
    for first, second in enumerate(taken_for):
        if first >= second or taken_for[second] != first:
            continue
        either = truth[:, first] != truth[:, second]  # with several labels an image may have both
        sign = np.where(truth[either, first], 1.0, -1.0)
        apart = sign * (plain[either, first] - plain[either, second]) > 0
        swapped = sign * (mirrored[either, second] - mirrored[either, first]) > 0
        count = len(sign)
        if min(wilson(int(hits.sum()), count, z)[0] for hits in (apart, swapped)) > 0.5:
            names = classes[first], classes[second]
            pairs.append(MirroredPair(*names, count, float(apart.mean()), float(swapped.mean())))
    return tuple(sorted(pairs, key=lambda pair: -pair.swapped))
