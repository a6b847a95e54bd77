"""predictions.csv: one line per sample, `path,label,predicted,score`."""

from __future__ import annotations

import csv
from pathlib import Path

from vitral.errors import DataError
from vitral.evaluation.metrics import Evaluation, Prediction
from vitral.weights import storage

COLUMNS = ("path", "label", "predicted", "score")


def write_predictions(path: Path, evaluation: Evaluation) -> None:
    """Write predictions.csv (UTF-8, RFC 4180 quoting: any class name survives).

    A file name that is not valid text keeps its stray bytes as \\udcXX escapes.
    Raises MachineError when `path` cannot be written; it is then as before.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            for p in evaluation.predictions:
                rows.writerow((p.key, p.label, p.predicted, f"{p.score:.6f}"))

    storage.write_file(path, write)


def read_predictions(path: Path) -> list[Prediction]:
    """The inverse of write_predictions; DataError names the line that is not as expected."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}); evaluate again to write it.") from None
    if not rows or tuple(rows[0]) != COLUMNS:
        raise DataError(f"{path} does not start with the columns {', '.join(COLUMNS)}.")
    predictions = []
    for number, row in enumerate(rows[1:], start=2):
        try:
            key, label, predicted, score = row
            predictions.append(
                Prediction(key=key, label=label, predicted=predicted, score=float(score))
            )
        except ValueError:
            raise DataError(
                f"{path}, line {number}: expected {', '.join(COLUMNS)}, found {row!r}."
            ) from None
    return predictions
