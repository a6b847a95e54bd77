"""Answers from a tree of classes: the group, where the class is unsure, scored on every level.

nodes = TreeNodes.of(tree, classes)
nodes.answers(chances, least)              # (N, K) probabilities -> the group of each, or -1
evaluate_tree(logits, labels, keys, classes, tree, calibration)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitral.evaluation import calibration as calibrating
from vitral.evaluation.intervals import wilson
from vitral.evaluation.score import share_line
from vitral.specs import Calibration
from vitral.specs.tree import ClassTree
from vitral.wording import listed

FEW = 20  # unsure images, below which a threshold for groups is not fitted
_CANDIDATES = 1000  # thresholds that are tried
_SHARE = 0.1  # of the unsure images, answered by a group at least

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TreeNodes:
    """The groups of a tree as arrays.

    Attributes:
        groups: M names, parents before their children.
        members: bool (M, K), the classes of each.
        parents: int (M,), the group above each, or -1.
    """

    groups: tuple[str, ...]
    members: NDArray[np.bool_]
    parents: Ints

    @classmethod
    def of(cls, tree: ClassTree, classes: Sequence[str]) -> TreeNodes:
        """Make the arrays of the groups that have classes."""
        names = sorted(tree.groups(classes), key=lambda name: (len(tree.above(name)), name))
        place = {name: i for i, name in enumerate(names)}
        members = np.zeros((len(names), len(classes)), bool)
        for k, name in enumerate(classes):
            for group in (name, *tree.above(name)):
                if group in place:
                    members[place[group], k] = True
        above = [place.get(tree.parents.get(name, ""), -1) for name in names]
        return cls(groups=tuple(names), members=members, parents=np.array(above, np.int64))

    def probabilities(self, chances: Floats) -> Floats:
        """Sum the probabilities of the classes of each group: (N, K) -> (N, M)."""
        return np.asarray(np.minimum(chances @ self.members.T, 1.0), np.float64)

    def ways(self, sums: Floats) -> Ints:
        """Go down the tree, at each step into the most probable group: (N, M) -> (N, depth).

        The coarsest first; -1 where the way has ended.
        """
        at = np.full(len(sums), -1)
        steps = []
        ended = np.zeros(len(sums), bool)
        while not ended.all() and len(self.groups):
            following = np.full(len(sums), -1)
            best = np.zeros(len(sums))
            for group, parent in enumerate(self.parents):
                better = (at == parent) & ~ended & (sums[:, group] > best)
                following[better] = group
                best[better] = sums[better, group]
            ended |= following < 0
            if not ended.all():
                steps.append(following)
            at = np.where(ended, -2, following)
        return np.stack(steps, axis=1) if steps else np.full((len(sums), 0), -1)

    def answers(self, chances: Floats, least: float) -> tuple[Ints, Floats]:
        """Find the smallest group on each image's way that has at least this probability.

        (N, K) probabilities -> (N,) indices of groups, -1 where none has; and its probability, 0
        there.
        """
        sums = self.probabilities(chances)
        ways = self.ways(sums)
        score = _along(sums, ways)
        depth = (score >= least).sum(axis=1)  # they fall on the way down
        rows = np.arange(len(ways))
        found = depth > 0
        last = np.maximum(depth - 1, 0)
        if not ways.shape[1]:
            return np.full(len(sums), -1), np.zeros(len(sums))
        group = np.where(found, ways[rows, last], -1)
        return group, np.where(found, score[rows, last], 0.0)


def _along(sums: Floats, ways: Ints) -> Floats:
    """The probability of each group on the way: (N, depth), 0 where it has ended."""
    score = np.take_along_axis(sums, np.maximum(ways, 0), axis=1)
    return np.where(ways >= 0, score, 0.0)


def fit_threshold(
    logits: Floats, labels: Ints, classes: Sequence[str], tree: ClassTree, calibration: Calibration
) -> float:
    """Find the probability from which on a group may be the answer for an image that is unsure.

    The smallest from which on at least 95 in 100 of such answers are right, among the images whose
    class is unsure; where there are too few of those to tell, 0.95 itself, as the temperature makes
    probabilities mean what they say.

    Args:
        logits: (N, K); labels: (N,) indices of the true class; classes: K names.
        tree: of the classes; calibration: of the model.
    """
    chances = _chances(logits, calibration.temperature)
    unsure = chances.max(axis=1) < calibration.threshold
    nodes = TreeNodes.of(tree, classes)
    count = int(unsure.sum())
    if count < FEW or not nodes.groups:
        return calibrating.AIM
    sums = nodes.probabilities(chances[unsure])
    ways = nodes.ways(sums)
    score = _along(sums, ways)
    right = nodes.members[np.maximum(ways, 0), labels[unsure][:, None]] & (ways >= 0)
    values = np.unique(score[score > 0])
    places = np.unique(np.linspace(0, len(values) - 1, min(_CANDIDATES, len(values))).astype(int))
    rows = np.arange(count)
    best = (-1.0, calibrating.AIM)
    for least in values[places]:
        depth = (score >= least).sum(axis=1)
        answered = depth > 0
        hits = right[rows, np.maximum(depth - 1, 0)] & answered
        if answered.sum() < max(1, min(FEW, _SHARE * count)):
            break
        share = float(hits.sum() / answered.sum())
        if share >= calibrating.AIM - 1e-9:
            return math.floor(float(least) * 1e6) / 1e6
        best = max(best, (share, float(least)))
    return max(calibrating.AIM, math.floor(best[1] * 1e6) / 1e6)


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelScore:
    """The accuracy on one level of a tree.

    Attributes:
        groups: the names on it.
        correct: images whose most probable name on it is the true one.
        accuracy, interval: the share and its Wilson 95 % interval.
    """

    groups: tuple[str, ...]
    correct: int
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeEvaluation:
    """The scores of a tree of classes.

    Attributes:
        levels: of groups, the coarsest first.
        samples: images.
        sure, sure_right: images whose class is sure, and those of them that are right.
        grouped, grouped_right: images that are answered by a group instead, and right ones.
        threshold: of the groups; None where the model has none, and then nothing is answered by
            one.
        cross_fitted: whether the thresholds come from these very images; each fifth of them was
            then answered by those of the other four.
    """

    levels: tuple[LevelScore, ...]
    samples: int
    sure: int
    sure_right: int
    grouped: int
    grouped_right: int
    threshold: float | None
    cross_fitted: bool

    def lines(self) -> Iterator[str]:
        """Write for a terminal the accuracy of each level, and how images are answered."""
        for level in self.levels:
            line = share_line("groups", level.accuracy, level.interval, 9)
            yield f"{line}  {level.correct:,} of {self.samples:,}: {listed(level.groups, 4)}"
        if self.threshold is None:
            return
        crossed = ", cross-fitted" if self.cross_fitted else ""
        none = self.samples - self.sure - self.grouped
        parts = (
            f"by a class {_counted(self.sure, self.sure_right)}",
            f"by a group {_counted(self.grouped, self.grouped_right)}",
            f"unsure of both {none:,}",
        )
        yield f"answered   {'; '.join(parts)}{crossed}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "levels": [
                {
                    "groups": list(level.groups),
                    "correct": level.correct,
                    "accuracy": level.accuracy,
                    "interval": list(level.interval),
                }
                for level in self.levels
            ],
            "threshold": self.threshold,
            "answers": {
                "class": {"samples": self.sure, "correct": self.sure_right},
                "group": {"samples": self.grouped, "correct": self.grouped_right},
                "unsure": self.samples - self.sure - self.grouped,
            },
            "cross_fitted": self.cross_fitted,
        }


def evaluate_tree(
    logits: ArrayLike,
    labels: ArrayLike,
    keys: Sequence[str],
    classes: Sequence[str],
    tree: ClassTree,
    calibration: Calibration | None,
    *,
    cross_fit: bool = False,
) -> TreeEvaluation:
    """Score the answers on every level of a tree, and the answers that take a group instead.

    Args:
        logits: (N, K), N >= 1; labels: (N,) indices of the true class; keys: N names, which decide
            the folds; classes: K names.
        tree: of the classes; calibration: of the model, without which nothing is unsure.
        cross_fit: whether both were fitted on these very images.
    """
    scores = np.asarray(logits, np.float64)
    truth = np.asarray(labels, np.int64)
    samples = len(truth)
    chances = _chances(scores, 1.0 if calibration is None else calibration.temperature)
    levels = [_level(chances, truth, names) for names in tree.levels(classes)]
    crossed = cross_fit and samples > 1 and calibration is not None and tree.threshold is not None
    counts = np.zeros(4, np.int64)
    if calibration is not None and tree.threshold is not None:
        nodes = TreeNodes.of(tree, classes)
        fold = calibrating.folds(keys) if crossed else np.zeros(samples, np.int64)
        for number in np.unique(fold):
            here = fold == number
            fitted = calibration
            least = tree.threshold
            if crossed:
                fitted = calibrating.fit(scores[~here], truth[~here])
                least = fit_threshold(scores[~here], truth[~here], classes, tree, fitted)
            counts += _answered(scores[here], truth[here], nodes, fitted, least)
    sure, sure_right, grouped, grouped_right = counts.tolist()
    return TreeEvaluation(
        levels=tuple(levels),
        samples=samples,
        sure=sure,
        sure_right=sure_right,
        grouped=grouped,
        grouped_right=grouped_right,
        threshold=tree.threshold if calibration is not None else None,
        cross_fitted=crossed,
    )


def _answered(
    logits: Floats, labels: Ints, nodes: TreeNodes, calibration: Calibration, least: float
) -> Ints:
    """How many are answered by a class, rightly; by a group, rightly."""
    chances = _chances(logits, calibration.temperature)
    sure = chances.max(axis=1) >= calibration.threshold
    right = chances.argmax(axis=1) == labels
    group, _ = nodes.answers(chances, least)
    grouped = (group >= 0) & ~sure
    within = np.zeros(len(labels), bool)
    if nodes.groups:
        within = nodes.members[np.maximum(group, 0), labels]
    return np.array([sure.sum(), (sure & right).sum(), grouped.sum(), (grouped & within).sum()])


def _level(chances: Floats, labels: Ints, names: Sequence[str]) -> LevelScore:
    groups, number = np.unique(np.array(names, dtype=object), return_inverse=True)
    sums = np.zeros((len(chances), len(groups)))
    np.add.at(sums.T, number, chances.T)
    correct = int((sums.argmax(axis=1) == number[labels]).sum())
    return LevelScore(
        groups=tuple(groups.tolist()),
        correct=correct,
        accuracy=correct / len(labels),
        interval=wilson(correct, len(labels)),
    )


def _chances(logits: Floats, temperature: float) -> Floats:
    return calibrating.softmax(np.asarray(logits, np.float64), temperature)


def _counted(samples: int, right: int) -> str:
    return f"{samples:,}, {100 * right / samples:.1f} % right" if samples else "none"
