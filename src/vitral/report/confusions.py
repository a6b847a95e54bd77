"""The confusions of the page: its matrix, the cells, and the images behind each cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.evaluation import Prediction, confusion_matrix
from vitral.report import style
from vitral.report.record import Record

MOST_CELLS = 30  # classes up to which the whole confusion matrix is shown
MOST_CONFUSED = 20  # classes of the matrix otherwise
MOST_PAIRS = 20  # fewer beside a whole matrix, which already shows them all
_MOST_NAMES = 200  # of the images of one cell
_MOST_NAMES_TOGETHER = 20_000  # about a megabyte

Matrix = NDArray[np.int64]


def counted(record: Record) -> tuple[list[str], Matrix]:
    """Class names in the model's order, and the (K, K) counts of predictions.csv."""
    answers = record.single_label
    classes = [str(name) for name in record.card.get("classes", ()) if answers]
    names = dict.fromkeys(classes)
    for prediction in answers:
        names |= dict.fromkeys((prediction.label, prediction.answer))
    order = {name: i for i, name in enumerate(names)}
    truth = [order[prediction.label] for prediction in answers]
    guess = [order[prediction.answer] for prediction in answers]
    return list(names), confusion_matrix(truth, guess, len(order))


def most_confused(matrix: Matrix) -> list[int]:
    """The classes to show a matrix of, in their order: all, or those of the top confusions."""
    if len(matrix) <= MOST_CELLS:
        return list(range(len(matrix)))
    chosen: dict[int, None] = {}
    for truth, guess in _frequent(matrix):
        both = chosen | dict.fromkeys((truth, guess))
        if len(both) > MOST_CONFUSED:
            break
        chosen = both
    return sorted(chosen)


def cells(matrix: Matrix, shown: Sequence[int]) -> list[list[dict[str, Any]]]:
    """Describe each cell: place, count, share of its row, and colours; an empty one has none."""
    rows = []
    for truth in shown:
        total = max(int(matrix[truth].sum()), 1)
        row = []
        for guess in shown:
            count = int(matrix[truth, guess])
            # the root makes single confusions visible beside a diagonal of hundreds
            background, text = style.shade((count / total) ** 0.5) if count else ("", "")
            colours = {"background": background, "text": text}
            place = {"place": f"{truth},{guess}", "predicted": guess}
            row.append({"count": count, "share": count / total} | place | colours)
        rows.append(row)
    return rows


def pairs(classes: Sequence[str], matrix: Matrix, most: int) -> list[dict[str, Any]]:
    """The most frequent (truth, answer) pairs that differ."""
    return [
        {
            "truth": classes[truth],
            "predicted": classes[guess],
            "place": f"{truth},{guess}",
            "count": int(matrix[truth, guess]),
            "share": float(matrix[truth, guess] / matrix[truth].sum()),
        }
        for truth, guess in _frequent(matrix)[:most]
    ]


def images(
    predictions: Sequence[Prediction], classes: Sequence[str], places: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """List the images behind each place "truth,answer", with their probabilities in %.

    The images that the model was surest of come first. Of one cell 200 are named, and of all
    together as many as a page can bear, the confusions before the right answers.
    """
    order = {name: i for i, name in enumerate(classes)}
    behind: dict[str, list[Prediction]] = {place: [] for place in places}
    for p in predictions:
        place = f"{order[p.label]},{order[p.answer]}"
        if place in behind:
            behind[place].append(p)
    left = _MOST_NAMES_TOGETHER
    result = {}
    for place, inside in sorted(behind.items(), key=lambda item: -len(set(item[0].split(",")))):
        if not inside:
            continue
        named = sorted(inside, key=lambda p: -p.score)[: min(_MOST_NAMES, left)]
        left -= len(named)
        result[place] = {
            "truth": inside[0].label,
            "predicted": inside[0].answer,
            "count": len(inside),
            "images": [[p.key, round(100 * p.score)] for p in named],
        }
    return result


def _frequent(matrix: Matrix) -> list[tuple[int, int]]:
    """The (truth, answer) pairs that differ and occur, the most frequent first."""
    wrong = matrix - np.diag(matrix.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]
    return [(truth, guess) for truth, guess in (divmod(int(i), len(matrix)) for i in order)]
