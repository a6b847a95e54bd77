"""predictions.csv: one line per sample; evaluation.json: what they amount to.

path,label,predicted,score,given        single-label; given: what its own class was given
path,labels,predicted,score of cat,...  multi-label: names with | between, a probability per class
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitral.errors import DataError
from vitral.evaluation import multi_label, single_label
from vitral.evaluation.changes import Changes
from vitral.evaluation.multi_label import MultiLabelEvaluation, evaluate_multi_label
from vitral.evaluation.score import Prediction, Score
from vitral.storage import files


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionTable:
    """The content of a predictions.csv.

    Attributes:
        predictions: one per line.
        multi_label: all that follows from a multi-label file, which has every probability; None
            for a single-label file.
    """

    predictions: tuple[Prediction, ...] = ()
    multi_label: MultiLabelEvaluation | None = None


def write_predictions(path: Path, evaluation: Score) -> None:
    """Write predictions.csv (UTF-8, RFC 4180 quoting: any class name survives).

    A file name that is not valid text keeps its stray bytes as \\udcXX escapes.
    Raises MachineError when `path` cannot be written; it is then as before.
    """
    files.write_csv(path, evaluation.csv_rows())


def read_predictions(path: Path) -> PredictionTable:
    """Read what `write_predictions` wrote; DataError names the line that is not as expected."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}); evaluate again to write it.") from None
    header = tuple(rows[0]) if rows else ()
    if header[:3] == multi_label.COLUMNS and len(rows) > 1:
        evaluation = _read_multi_label(path, header, rows[1:])
        return PredictionTable(predictions=evaluation.predictions, multi_label=evaluation)
    columns = single_label.COLUMNS
    if header not in (columns, columns[:4]):  # older files have no `given`
        raise DataError(f"{path} does not start with the columns {', '.join(columns)}.")
    return PredictionTable(predictions=_read_single_label(path, header, rows[1:]))


def _read_single_label(
    path: Path, header: Sequence[str], rows: Sequence[list[str]]
) -> tuple[Prediction, ...]:
    predictions = []
    for number, row in enumerate(rows, start=2):
        try:
            key, label, answer, score, *given = row
            if len(row) != len(header):
                raise ValueError
            predictions.append(
                Prediction(
                    key=key,
                    labels=(label,),
                    predicted=(answer,),
                    score=float(score),
                    label_probability=float(given[0]) if given and given[0] else None,
                )
            )
        except ValueError:
            raise _unexpected(path, number, header, row) from None
    return tuple(predictions)


def _read_multi_label(
    path: Path, header: Sequence[str], rows: Sequence[list[str]]
) -> MultiLabelEvaluation:
    classes = [name.removeprefix(multi_label.SCORE) for name in header[3:]]
    position = {name: k for k, name in enumerate(classes)}
    labels = np.zeros((len(rows), len(classes)), bool)
    scores = np.empty(labels.shape)
    for i, row in enumerate(rows):
        try:
            scores[i] = np.array(row[3:], dtype=np.float64).reshape(len(classes))
            labels[i, [position[name] for name in multi_label.apart(row[1])]] = True
        except (ValueError, KeyError, IndexError):
            raise _unexpected(path, i + 2, header, row) from None
    keys = [row[0] for row in rows]
    return evaluate_multi_label(scores, labels, classes, keys, "probabilities")


def _unexpected(path: Path, line: int, header: Sequence[str], row: list[str]) -> DataError:
    return DataError(f"{path}, line {line}: expected {', '.join(header)[:80]}, found {row!r:.200}.")


def write_evaluation(path: Path, evaluation: Score, changes: Changes | None = None) -> None:
    """Write evaluation.json: to_dict() without the confusions, which predictions.csv tells.

    `changes` against the network that a fine-tune began from stand beside it.

    Raises MachineError when `path` cannot be written; it is then as before.
    """
    values = {name: value for name, value in evaluation.to_dict().items() if name != "confusion"}
    if changes is not None:
        values["changes"] = changes.to_dict()
    files.write_json(path, values)
