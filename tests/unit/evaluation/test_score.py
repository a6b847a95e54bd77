"""Whatever an evaluation measures, it is written, compared and shown by one surface."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitral.evaluation import (
    Prediction,
    Score,
    Table,
    evaluate,
    mistakes,
    write_evaluation,
    write_predictions,
)

CLASSES = ("a", "b")
KEYS = ("1.jpg", "2.jpg", "3.jpg")
LOGITS = np.array([[2.0, -1.0], [3.0, -2.0], [-1.0, 0.5]], np.float32)


@dataclass(frozen=True)
class Reconstruction:
    """An evaluation that is no accuracy: a loss set against what guessing the mean would lose."""

    loss: float
    baseline: float
    samples: int
    predictions: tuple[Prediction, ...] = ()
    headline: str = "explained variance"

    @property
    def score(self) -> float:
        return 1 - self.loss / self.baseline

    @property
    def interval(self) -> tuple[float, float]:
        return (self.score - 0.1, self.score + 0.1)

    @property
    def measures(self) -> Mapping[str, float]:
        return {"baseline": self.baseline}

    def to_dict(self) -> dict[str, Any]:
        return {"explained_variance": self.score, "loss": self.loss, "samples": self.samples}

    def lines(self) -> Iterator[str | Table]:
        yield f"{self.headline} {self.score:.3f}"

    def csv_rows(self) -> Iterator[Iterable[str]]:
        return iter(())


def scores() -> list[Score]:
    one = evaluate("single_label", LOGITS, np.array([0, 1, 1]), CLASSES, KEYS)
    several = np.array([[1, 0], [1, 1], [0, 1]], bool)
    return [
        one,
        evaluate("multi_label", LOGITS, several, CLASSES, KEYS),
        Reconstruction(loss=0.5, baseline=2.0, samples=3),
    ]


@pytest.mark.parametrize("score", scores(), ids=lambda score: score.headline)
def test_every_evaluation_is_written_and_shown_alike(score: Score, tmp_path: Path) -> None:
    low, high = score.interval
    assert low < score.score < high
    write_evaluation(tmp_path / "evaluation.json", score)
    values = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert values[score.headline.replace(" ", "_")] == score.score
    assert (values["samples"], values["loss"]) == (3, score.loss)
    write_predictions(tmp_path / "predictions.csv", score)
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == (len(score.predictions) + 1 if score.predictions else 0)
    assert len(mistakes(score.predictions)) == len(score.predictions[:1])  # the second image
    assert score.headline in str(next(score.lines()))


def test_a_multi_label_model_is_scored_on_images_with_one_label_each() -> None:
    one = evaluate("multi_label", LOGITS, np.array([0, 0, 1]), CLASSES, KEYS)
    same = evaluate("multi_label", LOGITS, np.array([[1, 0], [1, 0], [0, 1]], bool), CLASSES, KEYS)
    assert one.to_dict() == same.to_dict()


def test_the_surest_mistakes_come_first() -> None:
    answers = [
        Prediction(key=str(i), labels=("a",), predicted=(answer,), score=score)
        for i, (answer, score) in enumerate([("a", 0.9), ("b", 0.6), ("b", 0.8), ("b", 0.8)])
    ]
    assert mistakes(answers) == [2, 3, 1]
    assert mistakes(answers, 1) == [2]
    assert not answers[1].correct and (answers[1].label, answers[1].answer) == ("a", "b")


def test_names_of_many_labels_stand_with_commas_between() -> None:
    answer = Prediction(key="1", labels=("a", "b"), predicted=(), score=0.5)
    assert (answer.label, answer.answer) == ("a, b", "")
