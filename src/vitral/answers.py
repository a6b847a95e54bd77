"""Answers: what is said of an image, made of what a network computed of it.

request = AnswerRequest(top=3, rule=classifier.set_rule(0.95))
answers_of(card, computed, names, request)[0].set
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitral.errors import UsageError
from vitral.evaluation.answer_sets import SetRule
from vitral.evaluation.class_tree import TreeNodes
from vitral.weights.card import Card

if TYPE_CHECKING:  # it opens data and reads networks, which most answers do without
    from vitral.evaluation.neighbours import NeighbourIndex, Similar


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The classes of one image.

    Attributes:
        path: where the image came from; "" for pixels given directly.
        label, score: the most probable class and its probability.
        top: (class, probability) pairs, best first.
        labels: all classes with a probability of at least 0.5, best first, of a model whose
            classes do not exclude each other; None of any other.
        unsure: whether the probability is below the threshold of the model's calibration; False
            where it has none.
        foreign: whether the image shows none of the classes, as far as its features tell; None of a
            model that nothing of the kind was fitted for.
        foreign_score: how far its features lie from those of the classes; 1 is the limit, and 95
            of 100 held-out images stay below it. None with `foreign`.
        group, group_score: the group of classes that is answered where the class is unsure, and its
            probability; None where the class is sure, no group is, or the model has none.
        set: the classes that may well be right, best first, where sets were asked for.
        similar: the training images most alike, the nearest first, where they were asked for.
    """

    path: str
    label: str
    score: float
    top: tuple[tuple[str, float], ...]
    labels: tuple[str, ...] | None = None
    unsure: bool = False
    foreign: bool | None = None
    foreign_score: float | None = None
    group: str | None = None
    group_score: float | None = None
    set: tuple[str, ...] | None = None
    similar: tuple[Similar, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; "labels" only of multi-label models, and what was not asked is not."""
        answer: dict[str, Any] = {
            "path": self.path,
            "label": self.label,
            "score": self.score,
            "top": [{"label": label, "score": score} for label, score in self.top],
            "unsure": self.unsure,
            "foreign": self.foreign,
            "foreign_score": self.foreign_score,
        }
        if self.labels is not None:
            answer["labels"] = list(self.labels)
        if self.group is not None:
            answer |= {"group": self.group, "group_score": self.group_score}
        if self.set is not None:
            answer["set"] = list(self.set)
        if self.similar is not None:
            answer["similar"] = [each.to_dict() for each in self.similar]
        return answer


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerRequest:
    """Everything that an answer is to tell.

    Attributes:
        top: classes to name.
        rule: of answer sets; None for none.
        index, similar: how many of these images, the most alike, to name; 0 for none.
    """

    top: int = 5
    rule: SetRule | None = None
    index: NeighbourIndex | None = None
    similar: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers below what can be named."""
        if self.top < 1:
            raise UsageError(f"top is at least 1, not {self.top}.")
        if self.similar < 0:
            raise UsageError(f"similar counts images, from 0, not {self.similar}.")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Computed:
    """The outputs of a network for B images.

    Attributes:
        logits: float32 (B, classes).
        distances: how foreign they are, (B,); None where nothing of the kind was fitted.
        features: what the head reads, float32 (B, width); None where nobody asks for it.
    """

    logits: NDArray[np.float32]
    distances: NDArray[np.float64] | None = None
    features: NDArray[np.float32] | None = None


def answers_of(
    card: Card, computed: Computed, names: Sequence[str], request: AnswerRequest
) -> list[Answer]:
    """Turn what was computed of B images of these names into answers."""
    task = card.task
    least = 0.0 if card.calibration is None else card.calibration.threshold
    chances = task.probabilities(computed.logits)
    ranked = np.argsort(-chances, axis=1, kind="stable")
    distances = None if computed.distances is None else computed.distances.tolist()
    inside = None if request.rule is None else request.rule.members(computed.logits)
    groups = _groups(card, chances)
    similar: list[tuple[Similar, ...]] | None = None
    if request.index is not None and request.similar and computed.features is not None:
        similar = request.index.nearest(computed.features, request.similar)
    answers = []
    for row, name in enumerate(names):
        order = ranked[row].tolist()
        scores = chances[row][order]
        best = [card.classes[k] for k in order[: request.top]]
        pairs = tuple(zip(best, scores[: request.top].tolist(), strict=True))
        unsure = pairs[0][1] < least
        group, group_score = groups[row] if unsure and groups else (None, None)
        distance = None if distances is None else distances[row]
        labels = None
        if task.multi_label:
            count = int((scores >= 0.5).sum())
            labels = tuple(card.classes[k] for k in order[:count])
        answers.append(
            Answer(
                path=name,
                label=pairs[0][0],
                score=pairs[0][1],
                top=pairs,
                labels=labels,
                unsure=unsure,
                foreign=None if distance is None else distance > 1,
                foreign_score=distance,
                group=group,
                group_score=group_score,
                set=(
                    None
                    if inside is None
                    else tuple(card.classes[k] for k in order if inside[row, k])
                ),
                similar=None if similar is None else similar[row],
            )
        )
    return answers


def _groups(card: Card, chances: np.ndarray) -> list[tuple[str | None, float | None]]:
    """The group of each image that may be answered, and its probability; [] without a tree."""
    if card.tree is None or card.tree.threshold is None:
        return []
    nodes = TreeNodes.of(card.tree, card.classes)
    numbers, scores = nodes.answers(chances, card.tree.threshold)
    return [
        (nodes.groups[number], score) if number >= 0 else (None, None)
        for number, score in zip(numbers.tolist(), scores.tolist(), strict=True)
    ]
