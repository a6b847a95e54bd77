"""predictions.csv: one line per sample; evaluation.json: what they amount to.

path,label,predicted,score,given        one label to an image; given: what its own class was given
path,labels,predicted,score of cat,...  multi-label: names with | between, a probability per class
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vitral.errors import DataError
from vitral.evaluation.multi_label import MultiLabelEvaluation, evaluate_multi_label
from vitral.evaluation.single_label import Evaluation, Prediction
from vitral.storage import files

COLUMNS = ("path", "label", "predicted", "score", "given")
MULTI_LABEL_COLUMNS = ("path", "labels", "predicted")
SCORE = "score of "  # and the class: the further columns of multi-label answers


def write_predictions(path: Path, evaluation: Evaluation | MultiLabelEvaluation) -> None:
    """Write predictions.csv (UTF-8, RFC 4180 quoting: any class name survives).

    A file name that is not valid text keeps its stray bytes as \\udcXX escapes.
    Raises MachineError when `path` cannot be written; it is then as before.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            csv.writer(file).writerows(_rows(evaluation))

    files.write_file(path, write)


def read_predictions(path: Path) -> list[Prediction] | MultiLabelEvaluation:
    """The inverse of write_predictions, with all that follows from it for multi-label answers.

    DataError names the line that is not as expected.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}); evaluate again to write it.") from None
    header = tuple(rows[0]) if rows else ()
    if header[:3] == MULTI_LABEL_COLUMNS and len(rows) > 1:
        return _read_multi_label(path, header, rows[1:])
    if header not in (COLUMNS, COLUMNS[:4]):  # older files have no `given`
        raise DataError(f"{path} does not start with the columns {', '.join(COLUMNS)}.")
    predictions = []
    for number, row in enumerate(rows[1:], start=2):
        try:
            key, label, predicted, score, *given = row
            if len(row) != len(header):
                raise ValueError
            predictions.append(
                Prediction(
                    key=key,
                    label=label,
                    predicted=predicted,
                    score=float(score),
                    given=float(given[0]) if given and given[0] else None,
                )
            )
        except ValueError:
            raise _unexpected(path, number, header, row) from None
    return predictions


def write_evaluation(path: Path, evaluation: Evaluation | MultiLabelEvaluation) -> None:
    """Write evaluation.json: to_dict() without the confusions, which predictions.csv tells.

    Raises MachineError when `path` cannot be written; it is then as before.
    """
    values = {name: value for name, value in evaluation.to_dict().items() if name != "confusion"}
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    files.write_text(path, text)


def joined(names: Iterable[str]) -> str:
    """'cat|indoors', as a CSV file of labels has it; a name with a | in it is quoted."""
    text = io.StringIO()
    csv.writer(text, delimiter="|").writerow(names)
    return text.getvalue().removesuffix("\r\n")


def _apart(text: str) -> list[str]:
    """The inverse of `joined`."""
    return next(csv.reader(io.StringIO(text, newline=""), delimiter="|"), [])


def _rows(evaluation: Evaluation | MultiLabelEvaluation) -> Iterable[Iterable[str]]:
    if isinstance(evaluation, MultiLabelEvaluation):
        yield *MULTI_LABEL_COLUMNS, *(SCORE + name for name in evaluation.classes)
        for answer, scores in zip(evaluation.predictions, evaluation.probabilities, strict=True):
            names = joined(answer.labels), joined(answer.predicted)
            yield answer.key, *names, *(f"{score:.6g}" for score in scores.tolist())
        return
    yield COLUMNS
    for p in evaluation.predictions:
        given = "" if p.given is None else f"{p.given:.6g}"
        yield p.key, p.label, p.predicted, f"{p.score:.6f}", given


def _read_multi_label(
    path: Path, header: tuple[str, ...], rows: list[list[str]]
) -> MultiLabelEvaluation:
    classes = [name.removeprefix(SCORE) for name in header[3:]]
    position = {name: k for k, name in enumerate(classes)}
    labels = np.zeros((len(rows), len(classes)), bool)
    scores = np.empty(labels.shape)
    for i, row in enumerate(rows):
        try:
            scores[i] = np.array(row[3:], dtype=np.float64).reshape(len(classes))
            labels[i, [position[name] for name in _apart(row[1])]] = True
        except (ValueError, KeyError, IndexError):
            raise _unexpected(path, i + 2, header, row) from None
    keys = [row[0] for row in rows]
    return evaluate_multi_label(scores, labels, classes, keys, "probabilities")


def _unexpected(path: Path, line: int, header: tuple[str, ...], row: list[str]) -> DataError:
    return DataError(f"{path}, line {line}: expected {', '.join(header)[:80]}, found {row!r:.200}.")
