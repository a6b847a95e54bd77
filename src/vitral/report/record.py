"""A run folder as a value; whatever is not there (yet) is None or empty."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitral.errors import DataError
from vitral.evaluation import (
    Comparison,
    MultiLabelEvaluation,
    Prediction,
    PredictionTable,
    read_predictions,
)
from vitral.specs.task import TaskKind
from vitral.storage import files

Line = dict[str, Any]  # of metrics.jsonl: numbers, and pairs of numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """The content of a run folder.

    Attributes:
        name: of the folder.
        recipe: the resolved recipe, nested plain values.
        command: what was typed; environment: versions and machine.
        training: lines of metrics.jsonl with a loss, by step.
        validations: lines with a val_score, by step.
        card: content of best/model.json.
        predictions: of predictions.csv; multi_label: what follows from a multi-label one.
        summary: of evaluation.json, where it tells of these predictions.
        views: the JPEG of training views.
        split: what the images are called, where the card does not say.
        unreadable: path and reason of images that were to be scored and could not be read.
        unknown: images left out of each class that the model does not know.
        compared: another model's name, and how it fares on these images.
        decisions: topic and sentence of everything that was chosen for the user.
        mirrored: pairs of classes, either way round, that a mirror turns into one another.
    """

    name: str
    recipe: dict[str, Any]
    command: str
    environment: dict[str, Any]
    training: list[Line]
    validations: list[Line]
    card: dict[str, Any]
    predictions: tuple[Prediction, ...] = ()
    multi_label: MultiLabelEvaluation | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    views: bytes = b""
    split: str = ""
    unreadable: tuple[tuple[str, str], ...] = ()
    unknown: Mapping[str, int] = field(default_factory=dict)
    compared: tuple[str, Comparison] | None = None
    decisions: tuple[tuple[str, str], ...] = ()
    mirrored: frozenset[tuple[str, str]] = frozenset()

    @property
    def kind(self) -> TaskKind:
        """The kind of task of the predictions."""
        return "single_label" if self.multi_label is None else "multi_label"

    @property
    def single_label(self) -> tuple[Prediction, ...]:
        """The predictions of a single-label task: those that can be confused."""
        return self.predictions if self.multi_label is None else ()

    @property
    def calibration(self) -> dict[str, Any]:
        """The calibration in evaluation.json: probabilities before and after the temperature."""
        return _mapping(self.summary.get("calibration"))

    @property
    def threshold(self) -> float | None:
        """The probability from which on an answer counts as confident."""
        threshold = _mapping(self.card.get("calibration")).get("threshold")
        return threshold if _finite(threshold) else self.calibration.get("threshold")

    @property
    def foreign(self) -> dict[str, Any]:
        """The record of what tells foreign images, in best/model.json; empty where nothing does."""
        made_by = _mapping(self.card.get("made_by"))
        return _mapping(_mapping(made_by.get("fitted")).get("foreign"))

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics in best/model.json."""
        return _mapping(self.card.get("metrics"))

    @property
    def measures(self) -> dict[str, Any]:
        """The measures of the last validation, by name, and over them those of best/model.json."""
        last = self.validations[-1] if self.validations else {}
        named = {k.removeprefix("val_"): v for k, v in last.items() if k.startswith("val_")}
        return named | self.metrics

    @property
    def headline(self) -> str:
        """The name of the first number of the page, such as "accuracy"."""
        measures = self.measures
        if measures and "accuracy" not in measures:  # an objective without classes: its own first
            return str(next(iter(measures))).replace("_", " ")
        # where nothing else tells: for one label the two are the same
        both = [x for x in self.validations if "val_score" in x and "val_accuracy" in x]
        apart = any(x["val_score"] != x["val_accuracy"] for x in both)
        multi_label = self.multi_label is not None or self.card.get("labels") == "several" or apart
        return "mean average precision" if multi_label else "accuracy"


def read_record(run: Path) -> Record:
    """Read what there is; DataError when the folder holds no part of a run or a damaged one."""
    parts = ("recipe.json", "metrics.jsonl", "predictions.csv", "best/model.json")
    if not any((run / part).is_file() for part in parts):
        raise DataError(
            f"{run} is not a run folder: it has none of {', '.join(parts)}. Give the folder "
            f"that `vitral train` printed."
        )
    content = _object(run / "recipe.json")
    card = files.read_folder(run / "best", lambda best: _object(best / "model.json"))
    made_by = _mapping(card.get("made_by"))
    wrapped = isinstance(content.get("recipe"), dict)  # with the command and environment beside it
    lines = _lines(run / "metrics.jsonl")
    table = run / "predictions.csv"
    answers = read_predictions(table) if table.is_file() else PredictionTable()
    views = run / "views.jpg"
    return Record(
        name=run.resolve().name,
        recipe=(content["recipe"] if wrapped else content) or _mapping(made_by.get("recipe")),
        command=str((content if wrapped else made_by).get("command") or ""),
        environment=_mapping(made_by.get("environment") or content.get("environment")),
        training=[line for line in lines if "loss" in line],
        validations=[line for line in lines if _is_validation(line)],
        card=card,
        predictions=answers.predictions,
        multi_label=answers.multi_label,
        summary=_summary(run / "evaluation.json", answers.predictions),
        views=views.read_bytes() if views.is_file() else b"",
        decisions=_decisions(content),
        mirrored=_mirrored(content),
    )


def mirrored_pairs(run: Path) -> frozenset[tuple[str, str]]:
    """Read which classes the run found, before it began, to be turned into others by a mirror."""
    return _mirrored(_object(run / "recipe.json"))


def _mirrored(content: dict[str, Any]) -> frozenset[tuple[str, str]]:
    pairs: set[tuple[str, str]] = set()
    entries = content.get("decisions")
    for entry in entries if isinstance(entries, list) else []:
        if _mapping(entry).get("topic") == "flips":
            for first, second in entry.get("pairs", ()):
                pairs |= {(first, second), (second, first)}
    return frozenset(pairs)


def _decisions(content: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """What recipe.json says was chosen; nothing in the runs of earlier versions."""
    entries = content.get("decisions")
    entries = [_mapping(entry) for entry in entries] if isinstance(entries, list) else []
    return tuple((str(entry.get("topic")), str(entry.get("sentence"))) for entry in entries)


def _summary(path: Path, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """evaluation.json, unless it tells of other answers than predictions.csv."""
    values = _object(path)
    counted = (len(predictions), sum(p.correct for p in predictions))
    return values if (values.get("samples"), values.get("correct")) == counted else {}


def _object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); restore it from a copy.") from None
    return _mapping(values)


def _mapping(values: Any) -> dict[str, Any]:
    return values if isinstance(values, dict) else {}


def _lines(path: Path) -> list[Line]:
    """The log by step; a step that was run twice (killed, resumed) counts once, the last time."""
    if not path.is_file():
        return []
    lines: dict[tuple[float, bool], Line] = {}
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(text)
        except ValueError:  # the last line of a process that was killed
            continue
        if isinstance(values, dict) and isinstance(values.get("step"), int | float):
            finite = {name: value for name, value in values.items() if _finite(value)}
            lines[values["step"], _is_validation(values)] = finite
    return [lines[key] for key in sorted(lines)]


def _is_validation(line: Line) -> bool:
    return "val_accuracy" in line or "val_score" in line  # the former alone in older runs


def _finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(_finite(item) for item in value)
    return isinstance(value, int | float) and math.isfinite(value)
